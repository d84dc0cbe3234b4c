from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from decaf_node.errors import BadSettings
from decaf_node.settings import Settings
from decaf_node.training.cache import LowerLayers, cache_lower_layers
from decaf_node.training.examples import collate, make_encoder
from decaf_node.training.live import find_adapter
from decaf_node.training.lora import attach_lora
from decaf_node.training.model import load_base, load_tokenizer
from tests.training.tiny import causal_settings, classifier_settings, make_bert, make_llama, topic_rows

UPPER = {"layers_to_transform": [2, 3]}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("bert"), layers=4)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama"), layers=4)


def settings_for(kind: str, bert: Path, llama: Path, **lora: Any) -> Settings:
    if kind == "causal":
        return causal_settings(llama, llama, lora={**UPPER, **lora})
    return classifier_settings(bert, bert, model={"pooling": kind}, lora={**UPPER, **lora})


def build(settings: Settings) -> Any:
    return attach_lora(load_base(settings.model, 0), settings)


def batches(settings: Settings, keyed: bool) -> list[dict[str, torch.Tensor]]:
    """Three epochs in different orders, so that batches mix examples seen before with new ones."""
    examples = make_encoder(settings, load_tokenizer(settings.model))(topic_rows(4))
    causal = settings.model.task == "causal-lm"
    orders = [torch.randperm(12, generator=torch.Generator().manual_seed(seed)).tolist() for seed in range(3)]
    return [
        collate([examples[number] for number in order[start : start + 5]], 0, causal, keyed)
        for order in orders
        for start in (0, 5, 10)
    ]


def losses(model: Any, settings: Settings, keyed: bool) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    seen = []
    for batch in batches(settings, keyed):
        model.train()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mean", "head", "causal"])
def test_training_with_the_cache_is_training_without_it(bert: Path, llama: Path, kind: str) -> None:
    settings = settings_for(kind, bert, llama)
    plain, cached = build(settings), build(settings)
    cache = cache_lower_layers(cached, entries=100)
    assert losses(cached, settings, keyed=True) == pytest.approx(losses(plain, settings, keyed=False), abs=1e-5)
    assert len(cache) == 12
    ours, theirs = find_adapter(cached).read(), find_adapter(plain).read()
    for name, product in ours.products.items():
        assert product.b.abs().max() > 1e-3
        # Adam turns tiny differences of a vanishing gradient into small steps
        assert torch.allclose(product.b, theirs.products[name].b, atol=2e-3)


@pytest.mark.slow
def test_a_small_cache_gives_the_same_and_stays_small(bert: Path, llama: Path) -> None:
    settings = settings_for("mean", bert, llama)
    plain, cached = build(settings), build(settings)
    cache = cache_lower_layers(cached, entries=6)
    assert losses(cached, settings, keyed=True) == pytest.approx(losses(plain, settings, keyed=False), abs=1e-5)
    assert len(cache) == 6


@pytest.mark.slow
def test_the_lower_layers_run_once_for_each_example(bert: Path, llama: Path) -> None:
    settings = settings_for("mean", bert, llama)
    model = build(settings)
    runs: list[int] = []
    first = model.base_model.model.encoder.encoder.layer[0].attention.self.query
    first.register_forward_hook(lambda module, args, out: runs.append(len(out)))
    cache_lower_layers(model, entries=100)
    runs.clear()
    losses(model, settings, keyed=True)
    assert sum(runs) == 12


def test_batches_without_keys_go_the_whole_way(bert: Path, llama: Path) -> None:
    settings = settings_for("mean", bert, llama)
    plain, cached = build(settings).eval(), build(settings).eval()
    cache = cache_lower_layers(cached, entries=100)
    batch = batches(settings, keyed=False)[0]
    assert torch.equal(plain(**batch).logits, cached(**batch).logits)
    assert len(cache) == 0


def test_an_error_does_not_leave_activations_behind(bert: Path, llama: Path) -> None:
    settings = settings_for("mean", bert, llama)
    model = build(settings).eval()
    cache_lower_layers(model, entries=100)
    one, other = batches(settings, keyed=True)[:2]
    expected = model(**{name: value for name, value in other.items() if name != "example_keys"}).logits
    with pytest.raises(ValueError, match="batch_size"):
        model(**{**one, "labels": one["labels"][:1]})
    assert torch.equal(model(**{n: v for n, v in other.items() if n != "example_keys"}).logits, expected)


@pytest.mark.parametrize(
    "lora",
    [
        {"layers_to_transform": [0, 3]},
        {"layers_to_transform": None, "target_modules": "all-linear"},
        {"modules_to_save": ["word_embeddings"]},
        {"bias": "all"},
    ],
)
def test_nothing_to_cache(bert: Path, llama: Path, lora: dict[str, Any]) -> None:
    with pytest.raises(BadSettings) as caught:
        cache_lower_layers(build(settings_for("mean", bert, llama, **lora)), entries=100)
    assert caught.value.reason == "model.nothing-to-cache"


def test_a_frozen_a_is_no_reason_to_cache_less(bert: Path, llama: Path) -> None:
    from decaf_node.training.live import freeze_a

    model = build(settings_for("mean", bert, llama))
    freeze_a(find_adapter(model))
    assert isinstance(cache_lower_layers(model, entries=1), LowerLayers)
