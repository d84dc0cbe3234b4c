"""clip: both towers train, captions come from labels or rows, and labels are found without a head."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.nn import functional
from transformers import CLIPModel

from decaf_node.errors import BadData, BadSettings, DecafError
from decaf_node.settings import Settings, parse_settings
from decaf_node.training.data import Data, load_data
from decaf_node.training.evaluate import evaluate, score_each
from decaf_node.training.export import load_exported, write_export
from decaf_node.training.live import find_adapter
from decaf_node.training.lora import attach_lora
from decaf_node.training.model import load_base, load_tokenizer
from decaf_node.training.tasks.table import load_task
from tests.training.pictured import CLOTHES, captioned, clothes, image_settings, make_clip, make_vit
from tests.training.test_images import assembled
from tests.training.test_live import randomised


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip"), width=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return clothes(tmp_path / "clothes", 4)


def settings(clip: Path, folder: Path, /, **sections: Any) -> Settings:
    return image_settings("clip", clip, folder, **sections)


def load(given: Settings) -> Data:
    return load_data(given, load_task(given).source)


def adapted(given: Settings, seed: int | None = None) -> Any:
    model = attach_lora(load_base(given.model, 0), given)
    if seed is not None:
        live = find_adapter(model)
        live.load(randomised(live.read(), seed))
    return model.eval()


def texts(given: Settings, data: Data) -> set[str]:
    tokenizer = load_tokenizer(given.model)
    return {tokenizer.decode(example.tokens, skip_special_tokens=True) for example in data.stream.examples}


def refusal(given: Settings, scratch: Path) -> DecafError:
    with pytest.raises((BadData, BadSettings)) as caught:
        assembled(given, scratch)
    assert caught.value.message.endswith(".")
    return caught.value


def test_the_loss_is_clips_own_and_both_ways(clip: Path, folder: Path) -> None:
    given = settings(clip, folder)
    task = load_task(given)
    examples = load_data(given, task.source).stream.examples[:6]
    batch = task.collate(examples)
    out = adapted(given, seed=1)(**batch)
    images, captions = (functional.normalize(side) for side in (out.image_embeds, out.text_embeds))
    similar = captions @ images.T / 0.07  # the first temperature of the paper
    right = torch.arange(6)  # the pair itself, and no other of the same label
    expected = (functional.cross_entropy(similar, right) + functional.cross_entropy(similar.T, right)) / 2
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_both_towers_train_and_the_base_stays(clip: Path, folder: Path, tmp_path: Path, targets: str | None) -> None:
    given = settings(clip, folder, lora={"target_modules": targets}, round={"limit": 2, "algorithm": "local"})
    ready = assembled(given, tmp_path / "scratch")
    before = {name: tensor.clone() for name, tensor in ready.model.state_dict().items()}
    ready.trainer.train()
    for name, tensor in ready.model.state_dict().items():
        assert torch.equal(tensor, before[name]) != ("lora_" in name), name
    trained = {name for name in before if "lora_B" in name}
    for tower in ("text_model", "vision_model"):
        assert len([name for name in trained if tower in name]) >= 4
    assert len(trained) == (8 if targets is None else 26)


def test_zero_shot_is_the_likest_prompt(clip: Path, folder: Path) -> None:
    given = settings(clip, folder, data={"evaluation_fraction": 0.0})
    task = load_task(given)
    examples = load_data(given, task.source).stream.examples
    model = adapted(given, seed=1)
    prompts = load_tokenizer(given.model)([f"a photo of a {label}." for label in CLOTHES], return_tensors="pt")
    ids = {"input_ids": prompts["input_ids"], "attention_mask": prompts["attention_mask"]}
    with torch.no_grad():
        logits = model(**ids, pixel_values=task.collate(examples)["pixel_values"]).logits_per_image
    gold = torch.tensor([example.label for example in examples])
    for batch in (7, 40):
        result = evaluate(model, examples, task.scorer(), batch, task.ranked)
        assert result.loss == pytest.approx(functional.cross_entropy(logits, gold).item(), rel=1e-4)
        assert result.accuracy == int((logits.argmax(1) == gold).sum()) / 40


def test_captions_come_from_the_template_or_from_rows(clip: Path, folder: Path, tmp_path: Path) -> None:
    given = settings(clip, folder, data={"caption": "this is {label}"})
    assert texts(given, load(given)) == {f"this is {label}" for label in CLOTHES}
    given = settings(clip, captioned(tmp_path / "flat", 3))
    assert texts(given, load(given)) == {f"this is a {label}" for label in CLOTHES}
    given = settings(clip, captioned(tmp_path / "empty", 3, text=""))
    assert texts(given, load(given)) == {f"a photo of a {label} ." for label in CLOTHES}


def test_a_caption_may_hold_what_unicode_takes_for_the_end_of_a_line(clip: Path, tmp_path: Path) -> None:
    folder = captioned(tmp_path / "flat", 1, text="a\u2028photo\x85of")
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows)
    (folder / "metadata.jsonl").write_bytes(lines.encode("utf-8-sig"))
    data = load(settings(clip, folder, data={"evaluation_fraction": 0.0}))
    assert len(data.stream.examples) == 10


def test_all_captions_of_an_image_are_on_one_side(clip: Path, tmp_path: Path) -> None:
    folder = captioned(tmp_path / "flat", 4)
    rows = (folder / "metadata.jsonl").read_text()
    (folder / "metadata.jsonl").write_text(rows + rows.replace("this is", "a photo of"))
    data = load(settings(clip, folder))
    held_out = {example.image for example in data.evaluation}
    assert len(data.evaluation) == 2 * len(held_out) > 0
    assert not held_out & {example.image for example in data.stream.examples}


def test_captions_without_labels_have_a_loss_and_no_accuracy(clip: Path, tmp_path: Path) -> None:
    given = settings(clip, captioned(tmp_path / "flat", 3, label=None), model={"labels": []})
    task = load_task(given)
    data = load_data(given, task.source)
    model = adapted(given)
    result = evaluate(model, data.evaluation, task.scorer(), 8, task.ranked)
    assert result.accuracy is None
    with torch.no_grad():
        whole = model(**task.collate(data.evaluation)).loss.item()
    score = score_each(model, data.evaluation, task.scorer(), len(data.evaluation))
    assert sum(score.losses) / sum(score.weights) == pytest.approx(whole, rel=1e-5)
    assert len(set(score.losses)) > 1  # each pair's own, or a difference would have no standard error


def test_an_export_is_the_same_to_us_and_to_peft(clip: Path, folder: Path, tmp_path: Path) -> None:
    given = settings(clip, folder)
    model = adapted(given, seed=1)
    write_export(tmp_path / "out", model, given.model, "base")
    loaded, processor = load_exported(tmp_path / "out", clip)
    plain = PeftModel.from_pretrained(CLIPModel.from_pretrained(clip), tmp_path / "out").eval()
    task = load_task(given)
    examples = load_data(given, task.source).stream.examples
    results = [evaluate(one, examples, task.scorer(), 8, True) for one in (model, loaded, plain)]
    assert len({(result.loss, result.accuracy) for result in results}) == 1
    pixels = torch.rand(2, 3, 28, 28)
    inputs = processor(text=["a bag", "a boot", "a coat"], images=[*pixels], return_tensors="pt", padding=True)
    assert loaded(**inputs).logits_per_image.shape == (2, 3)


def test_what_does_not_fit_is_one_sentence(clip: Path, folder: Path, tmp_path: Path) -> None:
    budget = {"epsilon": 8.0, "delta": 1e-3, "max_grad_norm": 1.0, "steps": 10}
    flat = captioned(tmp_path / "flat", 1, text=None, label=None)
    bare = shutil.copytree(clip, tmp_path / "bare")
    config = json.loads((bare / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 9
    (bare / "config.json").write_text(json.dumps(config))
    half = shutil.copytree(clip, tmp_path / "half")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (half / name).unlink()
    cases: list[tuple[Settings, str]] = [
        (settings(clip, folder, privacy=budget), "model.not-for-task"),
        (settings(make_vit(tmp_path / "vit", width=16), folder), "model.other-task"),
        (settings(clip, flat, model={"labels": []}), "data.no-caption"),
        (settings(clip, flat), "data.unknown-label"),
        (settings(bare, folder), "model.no-end-token"),
        (settings(half, folder), "model.no-end-token"),
    ]
    for number, (given, reason) in enumerate(cases):
        assert refusal(given, tmp_path / f"scratch{number}").reason == reason


@pytest.mark.parametrize(
    "document",
    [
        {"model": {"task": "clip", "quantization": "4bit"}, "data": {}},
        {"model": {"task": "clip"}, "data": {"caption": "a photo"}},
    ],
)
def test_settings_that_fit_no_mesh(document: dict[str, Any]) -> None:
    whole = {"model": {"path": "/m", **document["model"]}, "data": {"train": ["/d"], **document["data"]}}
    with pytest.raises(BadSettings) as caught:
        parse_settings(whole, "here")
    assert caught.value.reason == "settings.bad-value"
