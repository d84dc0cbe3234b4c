"""image-classification: folders of images, read when they are needed."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image, ImageOps
from transformers import AutoModelForImageClassification

from decaf_node.errors import BadData, BadSettings, DecafError
from decaf_node.link import Welcome
from decaf_node.settings import Settings
from decaf_node.training import checkup
from decaf_node.training.alone import LinkToNobody
from decaf_node.training.assembly import Assembled, assemble
from decaf_node.training.data import Data, Position, load_data
from decaf_node.training.evaluate import evaluate
from decaf_node.training.export import load_exported, write_export
from decaf_node.training.live import find_adapter
from decaf_node.training.lora import attach_lora
from decaf_node.training.model import load_base
from decaf_node.training.schema import schema_of, schema_parts
from decaf_node.training.tasks.table import load_task
from tests.training.pictured import CLOTHES, captioned, clothes, image_settings, make_clip, make_vit
from tests.training.test_live import randomised
from tests.training.tiny import make_bert, topic_rows, write_rows


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vit(tmp_path_factory.mktemp("vit"), width=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return clothes(tmp_path / "clothes", 4)


def settings(vit: Path, folder: Path, /, **sections: Any) -> Settings:
    return image_settings("image-classification", vit, folder, **sections)


def load(given: Settings) -> Data:
    return load_data(given, load_task(given).source)


def assembled(given: Settings, scratch: Path) -> Assembled:
    (scratch / "spool").mkdir(parents=True)
    account = str(scratch / "privacy.json")
    welcome = Welcome("", "node", given.model_dump(mode="json"), str(scratch / "spool"), account)
    return assemble(given, LinkToNobody(given, lambda *_: None), welcome, scratch)


def refusal(given: Settings, scratch: Path) -> DecafError:
    with pytest.raises((BadData, BadSettings)) as caught:
        assembled(given, scratch)
    assert caught.value.message.endswith(".")
    assert "\n" not in caught.value.message
    return caught.value


def drawn(data: Data, count: int) -> list[str]:
    return [Path(example.image).name for example in itertools.islice(iter(data.stream), count)]


def test_labels_are_the_names_of_the_folders(vit: Path, folder: Path) -> None:
    given = settings(vit, folder)
    data = load(given)
    examples = [*data.stream.examples, *data.evaluation]
    assert len(examples) == 40
    assert data.evaluation
    assert {CLOTHES[example.label] for example in examples} == set(CLOTHES)
    assert all(Path(example.image).parent.name == CLOTHES[example.label] for example in examples)
    batch = load_task(given).collate(examples[:3])
    assert batch["pixel_values"].shape == (3, 3, 28, 28)
    assert batch["labels"].tolist() == [example.label for example in examples[:3]]


def test_what_is_held_out_stays_so_under_another_name(vit: Path, folder: Path, tmp_path: Path) -> None:
    held_out = {example.content for example in load(settings(vit, folder)).evaluation}
    again = shutil.copytree(folder, tmp_path / "again")
    for path in sorted(again.glob("*/*.png")):
        path.rename(path.with_name(f"x{path.name}"))
    data = load(settings(vit, folder, data={"train": [folder, again]}))
    assert {example.content for example in data.evaluation} == held_out
    assert len(data.evaluation) == 2 * len(held_out)
    assert not held_out & {example.content for example in data.stream.examples}


def test_metadata_names_images_and_labels(vit: Path, tmp_path: Path) -> None:
    data = load(settings(vit, captioned(tmp_path / "flat", 2), data={"evaluation_fraction": 0.0}))
    assert sorted(example.label for example in data.stream.examples) == sorted([*range(10)] * 2)


def test_the_order_goes_on_where_it_was(vit: Path, folder: Path) -> None:
    given = settings(vit, folder)
    whole = drawn(load(given), 50)
    data = load(given)
    data.stream.seek(Position(0, 20))
    assert drawn(data, 30) == whole[20:]


def test_new_images_count_from_the_next_epoch_on_and_damaged_ones_never(
    vit: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = settings(vit, folder, data={"evaluation_fraction": 0.0})
    data = load(given)
    shutil.copy(next((folder / "bag").iterdir()), folder / "bag" / "new.png")
    data.stream.refresh()
    assert len(data.stream.examples) == 41
    (folder / "bag" / "damaged.png").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        data.stream.refresh()
        data.stream.refresh()
    assert len(data.stream.examples) == 41
    assert caplog.text.count("damaged.png is no image") == 1
    for path in (folder / "bag").iterdir():
        path.unlink()
    data.stream.refresh()
    assert len(data.stream.examples) == 36


def test_an_image_that_breaks_later_is_left_out_and_said_once(
    vit: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = settings(vit, folder)
    task = load_task(given)
    examples = load_data(given, task.source).stream.examples[:4]
    os.truncate(examples[1].image, 60)
    Path(examples[2].image).unlink()
    for _ in range(2):
        assert task.collate(examples)["labels"].tolist() == [examples[0].label, examples[3].label]
    assert caplog.text.count("cannot be decoded") == 2
    with pytest.raises(BadData) as caught:
        task.collate(examples[1:3])
    assert caught.value.reason == "data.unreadable"


def test_a_damaged_image_alone_in_its_batch_stops_nothing(vit: Path, folder: Path, tmp_path: Path) -> None:
    given = settings(
        vit,
        folder,
        data={"evaluation": [clothes(tmp_path / "held", 1)]},
        round={"steps": 45, "limit": 1},
        training={"arguments": {"per_device_train_batch_size": 1, "per_device_eval_batch_size": 3}},
    )
    ready = assembled(given, tmp_path / "scratch")
    damaged = (ready.data.stream.examples[7], ready.data.evaluation[-1])
    for example in damaged:
        os.truncate(example.image, 60)
    ready.trainer.train()
    task = load_task(given)
    result = evaluate(ready.model, ready.data.evaluation, task.scorer(), 3, True)
    assert result.examples == 9
    assert result.accuracy is not None
    assert round(result.accuracy * 9, 6).is_integer()
    with pytest.raises(BadData) as caught:
        evaluate(ready.model, damaged, task.scorer(), 3, True)
    assert caught.value.reason == "data.unreadable"


def test_sixteen_bits_of_grey_are_not_white(vit: Path, tmp_path: Path) -> None:
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for name, pixels in (
        ("deep.png", eight.astype(np.uint16) * 257),
        ("flat.png", eight),
        ("deep.tif", eight.astype(np.uint16) * 257),
    ):
        (tmp_path / "data" / "bag").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "data" / "bag" / name)
    given = settings(vit, tmp_path / "data", data={"evaluation_fraction": 0.0})
    task = load_task(given)
    deep, tif, flat = task.collate(load_data(given, task.source).stream.examples)["pixel_values"]
    assert torch.equal(deep, flat)
    assert torch.equal(tif, flat)


def test_a_photo_with_damaged_exif_is_left_out(vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(image: Image.Image) -> Image.Image:
        raise struct.error("required argument is not an integer")  # as Pillow 13 does

    given = settings(vit, clothes(tmp_path / "clothes", 1))
    task = load_task(given)
    examples = load_data(given, task.source).stream.examples
    monkeypatch.setattr(ImageOps, "exif_transpose", damaged)
    with pytest.raises(BadData) as caught:
        task.collate(examples)
    assert caught.value.reason == "data.unreadable"


def test_colours_and_turned_photos(vit: Path, tmp_path: Path) -> None:
    for number, mode in enumerate(("RGBA", "P", "L", "CMYK", "1")):
        (tmp_path / "data" / CLOTHES[number]).mkdir(parents=True)
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, (40, 20)).save(tmp_path / "data" / CLOTHES[number] / f"x.{suffix}")
    turned = Image.new("L", (40, 20))
    turned.paste(255, (0, 0, 20, 20))  # its left half is white; turned to the right, its upper one
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "data" / CLOTHES[0] / "turned.jpg", exif=exif)
    given = settings(vit, tmp_path / "data", data={"evaluation_fraction": 0.0})
    task = load_task(given)
    examples = load_data(given, task.source).stream.examples
    pixels = task.collate(examples)["pixel_values"]
    assert pixels.shape == (6, 3, 28, 28)
    (upright,) = (pixels[row, 0] for row, example in enumerate(examples) if example.image.endswith("turned.jpg"))
    assert upright[:12].min() > 0.9
    assert upright[16:].max() < -0.9


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("data.missing", "none"),
        ("data.not-a-folder", "rows.jsonl"),
        ("data.empty", "empty"),
        ("data.unreadable", "broken.png"),
        ("data.unknown-label", "fez"),
        ("data.no-label", "stray.png"),
    ],
)
def test_bad_data_is_one_sentence_that_says_where(
    vit: Path, folder: Path, tmp_path: Path, reason: str, word: str
) -> None:
    picture = next((folder / "bag").iterdir())
    write_rows(tmp_path / "rows.jsonl", topic_rows(1))
    (tmp_path / "empty" / "bag").mkdir(parents=True)
    places = {"data.missing": "none", "data.not-a-folder": "rows.jsonl", "data.empty": "empty"}
    match reason:
        case "data.unreadable":
            (folder / "bag" / "broken.png").write_bytes(picture.read_bytes()[:100])
        case "data.unknown-label":
            (folder / "fez").mkdir()
            shutil.copy(picture, folder / "fez")
        case "data.no-label":
            shutil.copy(picture, folder / "stray.png")
    error = refusal(settings(vit, tmp_path / places.get(reason, folder.name)), tmp_path / "scratch")
    assert error.reason == reason
    assert word in error.message


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "data.unreadable"),
        ("[]", "data.unreadable"),
        ('{"file_name": "none.png", "label": "bag"}', "data.missing"),
        ('{"label": "bag"}', "data.missing"),
        ('{"file_name": "FILE", "label": "fez"}', "data.unknown-label"),
        ('{"file_name": "FILE"}', "data.unknown-label"),
    ],
)
def test_a_bad_row_of_metadata_is_named_by_its_number(vit: Path, tmp_path: Path, row: str, reason: str) -> None:
    folder = captioned(tmp_path / "flat", 1)
    name = next(folder.glob("*.png")).name
    with (folder / "metadata.jsonl").open("a") as file:
        file.write("\n" + row.replace("FILE", name) + "\n")
    error = refusal(settings(vit, folder), tmp_path / "scratch")
    assert error.reason == reason
    assert "metadata.jsonl, row 12" in error.message
    assert "fez" not in error.message


def test_bad_models_are_one_sentence(vit: Path, folder: Path, tmp_path: Path) -> None:
    def reason(model: Path, /, **sections: Any) -> str:
        error = refusal(settings(model, folder, **sections), tmp_path / f"{model.name}{len(sections)}scratch")
        assert "labels" in error.message or str(model) in error.message
        return error.reason

    assert reason(make_bert(tmp_path / "bert")) == "model.other-task"
    bare = shutil.copytree(vit, tmp_path / "bare")
    (bare / "preprocessor_config.json").write_text("{")
    assert reason(bare) == "model.no-image-processor"
    none = shutil.copytree(vit, tmp_path / "none")
    (none / "preprocessor_config.json").unlink()
    assert reason(none) == "model.no-image-processor"
    empty = shutil.copytree(vit, tmp_path / "empty")
    (empty / "model.safetensors").unlink()
    assert reason(empty) == "model.not-a-model"
    other = shutil.copytree(vit, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert reason(other) == "model.weights-missing"
    assert reason(vit, model={"labels": []}) == "model.labels-missing"


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "pooling", "mean"),
        ("model", "gguf_file", "model.gguf"),
        ("model", "cache_lower_layers", True),
        ("data", "messages_column", "messages"),
        ("data", "prompt_column", "prompt"),
    ],
)
@pytest.mark.parametrize("task", ["image-classification", "clip"])
def test_what_is_for_texts_is_refused(vit: Path, tmp_path: Path, task: str, section: str, key: str, value: Any) -> None:
    error = refusal(image_settings(task, vit, vit, **{section: {key: value}}), tmp_path)
    assert error.reason == "model.not-for-task"
    assert f"{section}.{key}" in error.message


def test_a_convolution_cannot_be_adapted(vit: Path, folder: Path, tmp_path: Path) -> None:
    error = refusal(settings(vit, folder, lora={"target_modules": ["projection"]}), tmp_path)
    assert error.reason == "lora.unsupported-layer"


def test_targets_and_head_need_not_be_named(vit: Path, folder: Path) -> None:
    given = settings(vit, folder, lora={"target_modules": None})
    live = find_adapter(attach_lora(load_base(given.model, 0), given))
    assert {name.rpartition(".")[2] for name in live.layers} <= {"q_proj", "v_proj", "query", "value"}
    assert len(live.layers) == 4
    assert sorted(name.rpartition("classifier")[1:] for name in live.tensors) == [
        ("classifier", ".bias"),
        ("classifier", ".weight"),
    ]


def test_the_vision_tower_of_clip_can_be_a_classifier(folder: Path, tmp_path: Path) -> None:
    given = settings(make_clip(tmp_path / "clip", width=16), folder, lora={"target_modules": None})
    live = find_adapter(attach_lora(load_base(given.model, 0), given))
    assert len(live.layers) == 4
    assert all("vision_model" in name for name in live.layers)
    assert [tuple(tensor.shape) for _, tensor in sorted(live.read().tensors.items())] == [(10,), (10, 16)]


def test_every_node_begins_with_the_same_head_and_labels_are_part_of_the_schema(vit: Path, folder: Path) -> None:
    given = settings(vit, folder)
    lives = [find_adapter(attach_lora(load_base(given.model, 0), given)) for _ in range(2)]
    first, second = (live.read() for live in lives)
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    other = settings(vit, folder, model={"labels": [*reversed(CLOTHES)]})
    assert schema_of(schema_parts(given, lives[0], "base")) == schema_of(schema_parts(given, lives[1], "base"))
    assert schema_of(schema_parts(given, lives[0], "base")) != schema_of(schema_parts(other, lives[1], "base"))


def test_an_export_is_the_same_to_us_and_to_peft(vit: Path, folder: Path, tmp_path: Path) -> None:
    given = settings(vit, folder)
    model = attach_lora(load_base(given.model, 0), given)
    live = find_adapter(model)
    live.load(randomised(live.read(), 1))
    write_export(tmp_path / "out", model, given.model, "base")
    loaded, processor = load_exported(tmp_path / "out", vit)
    base = AutoModelForImageClassification.from_pretrained(vit, num_labels=10, ignore_mismatched_sizes=True)
    plain = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    task = load_task(given)
    examples = load_data(given, task.source).stream.examples
    results = [evaluate(one, examples, task.scorer(), 8, True) for one in (model, loaded, plain)]
    assert len({(result.loss, result.accuracy) for result in results}) == 1
    with Image.open(examples[0].image) as image:
        logits = loaded(**processor(images=image.convert("RGB"), return_tensors="pt")).logits
    assert logits.shape == (1, 10)
    assert loaded.config.id2label[9] == "boot"


def test_a_privacy_budget_is_kept_image_by_image(vit: Path, folder: Path, tmp_path: Path) -> None:
    budget = {"epsilon": 8.0, "delta": 1e-3, "max_grad_norm": 1.0, "steps": 6}
    ready = assembled(settings(vit, folder, privacy=budget, round={"steps": 3, "limit": 9}), tmp_path / "scratch")
    before = find_adapter(ready.model).read()
    ready.trainer.train()
    after = find_adapter(ready.model).read()
    assert all(not torch.equal(before.tensors[name], after.tensors[name]) for name in before.tensors)
    assert all(product.b.any() for product in after.products.values())
    account = json.loads((tmp_path / "scratch" / "privacy.json").read_text())
    assert sum(spent["steps"] for spent in account["spent"]) == 6


def test_a_checkup_counts_the_images(
    vit: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkup.look_at(settings(vit, folder), tmp_path / "remembered", tmp_path)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["mark"] for line in said if "mark" in line and line["subject"] != "GPU"} == {"well"}
    assert any("and an image processor" in line.get("message", "") for line in said)
    assert any("examples to train on" in line.get("message", "") for line in said)
