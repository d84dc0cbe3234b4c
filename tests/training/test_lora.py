from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict

from decaf_node.errors import BadSettings
from decaf_node.settings import Settings
from decaf_node.training.live import find_adapter, freeze_a
from decaf_node.training.lora import attach_lora, check_lora
from decaf_node.training.model import load_base
from tests.training.tiny import causal_settings, classifier_settings, make_bert, make_llama


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("bert"))


def attached(settings: Settings) -> Any:
    return attach_lora(load_base(settings.model, settings.mixing.initial_a_seed), settings)


def tune(model: Path, **lora: Any) -> Any:
    return attached(causal_settings(model, model, lora=lora))


def reason_of(lora: dict[str, Any]) -> str:
    with pytest.raises(BadSettings) as caught:
        check_lora(lora)
    for key in lora:
        assert key in caught.value.message
    return caught.value.reason


@pytest.mark.parametrize(
    "lora",
    [
        {"use_dora": True},
        {"use_qalora": True},
        {"lora_bias": True},
        {"layer_replication": [[0, 2]]},
        {"target_parameters": ["experts"]},
        {"alora_invocation_tokens": [1]},
        {"trainable_token_indices": [3]},
        {"megatron_config": {"x": 1}},
        *({"init_lora_weights": name} for name in ("pissa", "pissa_niter_4", "olora", "corda", "eva", "loftq")),
    ],
)
def test_what_is_no_product_on_an_unchanged_base_is_refused_by_name(lora: dict[str, Any]) -> None:
    assert reason_of(lora) == "lora.not-a-product"


def test_a_variant_that_is_switched_off_is_fine() -> None:
    check_lora({"use_dora": False, "layer_replication": None, "r": 4, "lora_alpha": 8, "use_rslora": True})


@pytest.mark.parametrize("key", ["rank", "task_type", "inference_mode"])
def test_unknown_keys_are_refused_by_name(key: str) -> None:
    assert reason_of({key: 3}) == "lora.unknown-key"


def test_targets_that_match_nothing(llama: Path) -> None:
    with pytest.raises(BadSettings, match="nowhere") as caught:
        tune(llama, target_modules=["nowhere"])
    assert caught.value.reason == "lora.does-not-fit"


def test_an_embedding_is_no_linear_layer(llama: Path) -> None:
    with pytest.raises(BadSettings, match="embed_tokens") as caught:
        tune(llama, target_modules=["embed_tokens"])
    assert caught.value.reason == "lora.unsupported-layer"


def test_nodes_share_the_first_a_whatever_their_random_state_and_their_other_layers(llama: Path) -> None:
    torch.manual_seed(1)
    one = find_adapter(tune(llama, target_modules=["q_proj", "v_proj"])).read()
    torch.manual_seed(2)
    two = find_adapter(tune(llama, target_modules=["v_proj"])).read()
    for name, product in two.products.items():
        assert torch.equal(product.a, one.products[name].a)
        assert not product.b.any()
    assert len({product.a.sum().item() for product in one.products.values()}) == len(one.products)
    other = find_adapter(attached(causal_settings(llama, llama, mixing={"initial_a_seed": 1}))).read()
    name = next(iter(two.products))
    assert not torch.equal(other.products[name].a, one.products[name].a)


@pytest.mark.parametrize("initialisation", ["gaussian", "orthogonal", False])
def test_other_first_factors_are_shared_too(llama: Path, initialisation: str | bool) -> None:
    torch.manual_seed(1)
    one = find_adapter(tune(llama, init_lora_weights=initialisation)).read()
    torch.manual_seed(2)
    two = find_adapter(tune(llama, init_lora_weights=initialisation)).read()
    for name, product in one.products.items():
        assert torch.equal(product.a, two.products[name].a)
        assert torch.equal(product.b, two.products[name].b)


@pytest.mark.parametrize(("rslora", "scale"), [(False, 16 / 4), (True, 16 / 4**0.5)])
def test_the_scale_is_pefts(llama: Path, rslora: bool, scale: float) -> None:
    live = find_adapter(tune(llama, r=4, lora_alpha=16, use_rslora=rslora))
    assert {layer.scale for layer in live.layers.values()} == {scale}
    assert live.rank == 4


def test_ranks_may_differ_between_layers(llama: Path) -> None:
    live = find_adapter(tune(llama, r=2, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 6}))
    assert {layer.a.shape[0] for layer in live.layers.values()} == {2, 6}
    assert live.rank == 6


@pytest.mark.parametrize("pooling", ["head", "mean"])
@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
def test_tensors_are_named_as_in_pefts_state_dict(bert: Path, pooling: str, bias: str) -> None:
    model = attached(classifier_settings(bert, bert, model={"pooling": pooling}, lora={"bias": bias}))
    named = find_adapter(model).named()
    # PEFT's dictionary with bias = "all" also has biases that a frozen copy of the head holds; those do not train
    assert set(named) <= set(get_peft_model_state_dict(model))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained == sum(parameter.numel() for parameter in named.values())
    assert any("classifier.weight" in name for name in named)


def test_modules_to_save_are_plain_tensors(llama: Path) -> None:
    live = find_adapter(tune(llama, modules_to_save=["lm_head"]))
    assert list(live.tensors) == ["base_model.model.lm_head.weight"]
    assert live.parameters == sum(parameter.numel() for parameter in live.named().values())


def test_a_frozen_a_is_still_part_of_the_product(llama: Path) -> None:
    model = tune(llama)
    live = find_adapter(model)
    freeze_a(live)
    assert not any(layer.a.requires_grad for layer in live.layers.values())
    assert all(layer.b.requires_grad for layer in live.layers.values())
    assert set(find_adapter(model).named()) == set(live.named())


@pytest.mark.parametrize("pooling", ["head", "mean"])
def test_what_trains_is_float32_even_in_a_half_precision_model(bert: Path, pooling: str) -> None:
    settings = classifier_settings(
        bert,
        bert,
        model={"pooling": pooling, "dtype": "bfloat16"},
        lora={"modules_to_save": ["LayerNorm", "word_embeddings"]},
    )
    model = attached(settings)
    named = find_adapter(model).named()
    assert len(named) > 10
    assert {parameter.dtype for parameter in named.values()} == {torch.float32}
    ids = torch.tensor([[2, 8, 9, 3]])
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.tensor([1]))
    out.loss.backward()
    assert all(parameter.grad is not None for name, parameter in named.items() if "lora_A" not in name)


def test_biases_of_a_half_precision_model_are_not_trained(bert: Path) -> None:
    with pytest.raises(BadSettings) as caught:
        attached(classifier_settings(bert, bert, model={"dtype": "bfloat16"}, lora={"bias": "all"}))
    assert caught.value.reason == "lora.half-precision-bias"
