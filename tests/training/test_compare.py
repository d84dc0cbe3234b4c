"""Base, own-alone and mesh adapter side by side: the figures are those of each alone, and what does not fit is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decaf_node.errors import DecafError
from decaf_node.settings import Settings, load_settings
from decaf_node.training.compare import compare
from decaf_node.training.evaluate import classify, evaluate
from decaf_node.training.examples import make_encoder
from decaf_node.training.export import load_exported
from tests.training.saved_node import saved_node
from tests.training.tiny import make_bert, topic_rows, write_rows


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("node")
    saved_node(folder, rounds=8, model={"cache_lower_layers": True}, lora={"layers_to_transform": [1]})
    write_rows(folder / "held.jsonl", topic_rows(20))
    return folder


def compared(node: Path, file: Path, settings: Settings | None = None, steps: int = 0) -> dict[str, Any]:
    settings = settings or load_settings(node / "config.toml", {})
    return compare(settings, file, node / "state/export/adapter", node / "evaluations", steps, lambda words: None)


def changed(node: Path, **model: Any) -> Settings:
    settings = load_settings(node / "config.toml", {})
    return settings.model_copy(update={"model": settings.model.model_copy(update=model)})


@pytest.mark.slow
def test_each_figure_is_that_of_the_model_by_itself(node: Path) -> None:
    found = compared(node, node / "held.jsonl", steps=3)
    assert list(found["models"]) == ["base", "alone", "mesh"]
    assert found["examples"] == 60
    settings = load_settings(node / "config.toml", {})
    model, tokenizer = load_exported(node / "state/export/adapter", settings.model.path)
    examples = make_encoder(settings, tokenizer)(topic_rows(20))
    again = evaluate(model, examples, classify(tokenizer.pad_token_id, keyed=False), batch=8, ranked=True)
    assert found["models"]["mesh"] == {"loss": pytest.approx(again.loss), "accuracy": again.accuracy}
    over = found["mesh_over"]["base"]
    accuracies = [found["models"][name]["accuracy"] for name in ("mesh", "base")]
    assert over["accuracy"]["accuracy"] == pytest.approx(accuracies[0] - accuracies[1])
    assert over["loss"]["loss"] == pytest.approx(found["models"]["mesh"]["loss"] - found["models"]["base"]["loss"])
    assert (over["loss"]["noise"], over["loss"]["loss"] < 0) == (False, True)


@pytest.mark.slow
def test_as_many_steps_alone_as_the_adapter_has_had_are_within_noise(node: Path) -> None:
    """This node's "mesh" was itself alone, so the two are one adapter."""
    found = compared(node, node / "held.jsonl", steps=24)
    assert found["models"]["alone"] == found["models"]["mesh"]
    assert found["mesh_over"]["alone"]["accuracy"]["noise"]
    assert found["mesh_over"]["alone"]["loss"]["noise"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "reason", "code"),
    [
        ("none.jsonl", None, "data.missing", 65),
        ("empty.jsonl", "", "data.empty", 65),
        ("blank.jsonl", '{"text": " ", "label": "tech"}\n', "data.empty", 65),
        ("notes.txt", "words", "data.unknown-format", 65),
        ("broken.jsonl", '{"text": ', "data.unreadable", 65),
        ("columns.jsonl", '{"body": "the cat"}\n', "data.column-missing", 65),
        ("labels.jsonl", '{"text": "the cat", "label": "cats"}\n', "data.unknown-label", 65),
    ],
)
def test_a_file_that_does_not_fit_is_said(
    node: Path, tmp_path: Path, name: str, content: str | None, reason: str, code: int
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DecafError) as caught:
        compared(node, tmp_path / name)
    assert (caught.value.reason, caught.value.exit_code) == (reason, code)
    assert str(tmp_path / name) in caught.value.message


@pytest.mark.slow
def test_an_adapter_of_another_model_or_task_is_said(node: Path, tmp_path: Path) -> None:
    other = make_bert(tmp_path / "bert", seed=1)
    labels = ("sport", "politics", "tech", "film")
    for settings, reason, code in (
        (changed(node, path=other), "eval.other-base", 78),
        (changed(node, path=tmp_path / "none"), "model.missing", 65),
        (changed(node, labels=labels), "eval.other-task", 78),
    ):
        with pytest.raises(DecafError) as caught:
            compared(node, node / "held.jsonl", settings)
        assert (caught.value.reason, caught.value.exit_code) == (reason, code)
    notes = node / "state/export/adapter/decaf.json"
    kept = notes.read_text()
    notes.write_text(json.dumps({"task": "causal-lm"}))
    try:
        with pytest.raises(DecafError) as caught:
            compared(node, node / "held.jsonl")
    finally:
        notes.write_text(kept)
    assert (caught.value.reason, caught.value.exit_code) == ("export.not-an-export", 65)
