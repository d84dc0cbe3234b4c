"""The size that is foretold is the size of the file that the trainer writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from decaf_node.daemon.planning.forecast import Size
from decaf_node.errors import BadData, BadSettings
from decaf_node.lowrank.codec import write_snapshot
from decaf_node.settings import Settings
from decaf_node.snapshot import Wire
from decaf_node.training.live import find_adapter
from decaf_node.training.lora import attach_lora
from decaf_node.training.model import load_base
from decaf_node.training.sizing import mix_seconds, sizes, step_seconds
from tests.training.assets import asset
from tests.training.pictured import image_settings, make_clip, make_vit
from tests.training.tiny import causal_settings, classifier_settings, make_bert, make_llama, topic_rows, write_rows

DIGEST = "f" * 64


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama"))


def written(settings: Settings, path: Path) -> dict[str, int]:
    """Return the bytes of real files, but for compact: how many those are depends on the numbers."""
    adapter = find_adapter(attach_lora(load_base(settings.model, 0), settings)).read()
    found = {}
    for wire in {*get_args(Wire)} - {"compact"}:
        write_snapshot(path, adapter, wire=wire, schema=DIGEST, base=DIGEST, round=1)
        found[wire] = path.stat().st_size
    return found


@pytest.mark.parametrize(
    "lora",
    [
        {"r": 2},
        {"r": 5, "use_rslora": True, "target_modules": ["query", "key", "dense"]},
        {"r": 4, "rank_pattern": {"query": 7}, "layers_to_transform": [1], "bias": "lora_only"},
    ],
)
@pytest.mark.parametrize("pooling", ["mean", "head"])
def test_a_classifier(bert: Path, tmp_path: Path, pooling: str, lora: dict[str, Any]) -> None:
    settings = classifier_settings(bert, bert, model={"pooling": pooling}, lora=lora)
    found = sizes(settings)
    assert found["bytes"].items() >= written(settings, tmp_path / "snapshot").items()
    assert found["rank"] == lora["r"], "what lora.r is, whatever lora.rank_pattern has beside it"


def test_what_has_a_rank_of_its_own_does_not_shrink_with_the_others(bert: Path) -> None:
    lora = {"target_modules": ["query", "value"], "rank_pattern": {"query": 7}}
    found, half = (sizes(classifier_settings(bert, bert, lora={"r": r, **lora})) for r in (4, 2))
    size = Size(found["bytes"], found["factors"], found["plain"], found["rank"])
    assert abs(size.of("float32", 2) - half["bytes"]["float32"]) <= 16


@pytest.mark.parametrize(("task", "make"), [("image-classification", make_vit), ("clip", make_clip)])
def test_tasks_with_images(tmp_path: Path, task: str, make: Callable[..., Path]) -> None:
    settings = image_settings(task, make(tmp_path / "model", width=16), tmp_path)
    assert sizes(settings)["bytes"].items() >= written(settings, tmp_path / "snapshot").items()


def test_embeddings_and_head_are_not_quantized(llama: Path) -> None:
    model = load_base(causal_settings(llama, llama).model, 0)
    linear = [each for each in model.modules() if isinstance(each, torch.nn.Linear) and each is not model.lm_head]
    numbers = sum(each.weight.numel() for each in linear)
    whole, small = (
        sizes(causal_settings(llama, llama, model={"dtype": "bfloat16", "quantization": how}))["memory_bytes"]
        for how in ("none", "4bit")
    )
    assert whole - small == 1.5 * numbers


def test_a_language_model(llama: Path, tmp_path: Path) -> None:
    settings = causal_settings(llama, llama, model={"dtype": "bfloat16"}, lora={"modules_to_save": ["lm_head"]})
    found = sizes(settings)
    assert found["bytes"].items() >= written(settings, tmp_path / "snapshot").items()
    model = load_base(settings.model, 0)
    trained = found["factors"] + found["plain"]
    assert found["memory_bytes"] == 2 * sum(each.numel() for each in model.parameters()) + 16 * trained


@pytest.mark.e2e
def test_real_models(tmp_path: Path) -> None:
    encoder = classifier_settings(asset("minilm"), tmp_path, lora={"r": 8, "lora_alpha": 16})
    assert sizes(encoder)["bytes"].items() >= written(encoder, tmp_path / "snapshot").items()
    (gguf,) = asset("smollm2").glob("*.gguf")
    language = causal_settings(gguf.parent, tmp_path, model={"gguf_file": gguf.name}, lora={"r": 8})
    assert sizes(language)["bytes"].items() >= written(language, tmp_path / "snapshot").items()


@pytest.mark.slow
def test_steps_and_a_mix_are_timed(bert: Path, tmp_path: Path) -> None:
    settings = classifier_settings(bert, write_rows(tmp_path / "rows.jsonl", topic_rows(8)))
    assert 0 < step_seconds(settings, 2) < 60
    assert 0 < mix_seconds(settings) < 60


def test_what_does_not_fit(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData) as missing:
        sizes(classifier_settings(tmp_path / "none", bert))
    assert missing.value.reason == "model.missing"
    with pytest.raises(BadSettings) as other:
        sizes(classifier_settings(bert, bert, lora={"target_modules": ["q_proj"]}))
    assert other.value.reason == "lora.does-not-fit"
    with pytest.raises(BadSettings) as unlabelled:
        sizes(classifier_settings(bert, bert, model={"labels": []}))
    assert unlabelled.value.reason == "model.labels-missing"
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadData) as strange:
        sizes(causal_settings(tmp_path, bert))
    assert strange.value.reason == "model.unreadable"
