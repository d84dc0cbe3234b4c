from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from decaf_node.errors import BadData
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.mixing import AdapterEdge, mix_adapters
from decaf_node.lowrank.product import Product
from decaf_node.training.live import find_adapter
from decaf_node.training.lora import attach_lora
from decaf_node.training.model import load_base
from tests.training.tiny import classifier_settings, make_bert

IDS = torch.tensor([[2, 8, 9, 10, 3]])


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("bert"))


def build(bert: Path, **lora: object) -> Any:
    settings = classifier_settings(bert, bert, lora=lora)
    return attach_lora(load_base(settings.model, 0), settings).eval()


def randomised(adapter: Adapter, seed: int) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    return Adapter(
        {
            name: Product(
                torch.randn(p.b.shape, generator=generator), torch.randn(p.a.shape, generator=generator), p.scale
            )
            for name, p in adapter.products.items()
        },
        {name: torch.randn(tensor.shape, generator=generator) for name, tensor in adapter.tensors.items()},
    )


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    return out


def test_what_is_loaded_changes_what_the_model_says(bert: Path) -> None:
    """Each layer and each tensor for itself: a copy that the model does not use would train nothing."""
    model = build(bert)
    live = find_adapter(model)
    start = live.read()
    full = randomised(start, 1)
    for name in start.products:
        live.load(start)
        before = logits(model)
        live.load(Adapter({**start.products, name: full.products[name]}, start.tensors))
        assert not torch.allclose(before, logits(model)), name
    for name in start.tensors:
        live.load(start)
        before = logits(model)
        live.load(Adapter(start.products, {**start.tensors, name: full.tensors[name]}))
        assert not torch.allclose(before, logits(model)), name


def test_a_mix_that_is_loaded_acts_as_the_mixed_dense_update(bert: Path) -> None:
    """With ranks that hold the sum exactly, the model equals one whose base weights were changed densely."""
    model, wide = build(bert), build(bert, r=4, lora_alpha=8)
    one, two = randomised(find_adapter(model).read(), 1), randomised(find_adapter(model).read(), 2)
    live = find_adapter(wide)
    live.load(_widened(one, live.read()))
    now = live.read()
    live.load(mix_adapters(now, [AdapterEdge(now, two, 0.5)]).adapter)

    plain = build(bert)
    target = find_adapter(plain)
    target.load(Adapter(target.read().products, {n: 0.5 * one.tensors[n] + 0.5 * two.tensors[n] for n in one.tensors}))
    with torch.no_grad():
        for name, product in one.products.items():
            dense = 0.5 * product.dense() + 0.5 * two.products[name].dense()
            plain.get_submodule(name).base_layer.weight += dense.float()
    assert torch.allclose(logits(wide), logits(plain), atol=1e-4)


def test_reading_gives_a_copy(bert: Path) -> None:
    live = find_adapter(build(bert))
    before = live.read()
    live.load(randomised(before, 3))
    after = live.read()
    assert all(not torch.equal(before.products[n].a, after.products[n].a) for n in before.products)


def test_parameters_stay_the_same_objects(bert: Path) -> None:
    """An optimizer keeps its moments by the parameter object."""
    model = build(bert)
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    live = find_adapter(model)
    live.load(randomised(live.read(), 1))
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before


def test_an_adapter_of_another_shape_changes_nothing(bert: Path) -> None:
    live, other = find_adapter(build(bert)), find_adapter(build(bert, r=3))
    before = live.read()
    with pytest.raises(BadData) as caught:
        live.load(randomised(other.read(), 1))
    assert caught.value.reason == "training.adapter-does-not-fit"
    after = live.read()
    assert all(torch.equal(before.products[n].a, after.products[n].a) for n in before.products)


def _widened(adapter: Adapter, like: Adapter) -> Adapter:
    """The same products at a higher rank and another scale."""
    products = {}
    for name, product in adapter.products.items():
        wide = like.products[name]
        a, b = torch.zeros_like(wide.a), torch.zeros_like(wide.b)
        a[: product.rank], b[:, : product.rank] = product.a, product.b * (product.scale / wide.scale)
        products[name] = Product(b, a, wide.scale)
    return Adapter(products, adapter.tensors)
