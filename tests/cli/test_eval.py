"""``decaf-node eval FILE``: as a person types it, with and without a running node; a real encoder on real news."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from decaf_node.cli.evaluate.tables import comparison_screen, history_table
from tests.cli.command import decaf_node
from tests.daemon.processes import mesh
from tests.training.assets import asset
from tests.training.saved_node import saved_node
from tests.training.tiny import topic_rows, write_rows

ROUNDS = 8


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("node")
    saved_node(folder, ROUNDS)
    write_rows(folder / "held.jsonl", topic_rows(20))
    return folder


def typed(node: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    places = ("--config", node / "config.toml", "--state", node / "state", "--runtime", node / "run")
    return decaf_node("eval", *arguments, *places)


@pytest.mark.slow
def test_a_comparison_is_shown_kept_and_listed(node: Path) -> None:
    assert typed(node, "--history").stdout == "Nothing has been compared yet: decaf-node eval FILE\n"
    shown = typed(node, node / "held.jsonl")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[0].endswith("held.jsonl: 60 examples")
    assert [line.split("  ")[0] for line in lines[2:4]] == ["base model", f"mesh, round {ROUNDS}"]
    assert "The mesh over base model: accuracy +" in shown.stdout
    assert "add --alone, which trains 24 steps" in shown.stdout
    done = typed(node, node / "held.jsonl", "--alone", "--steps", "6", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["round"], document["steps"], document["models"]["alone"]["steps"]) == (ROUNDS, 24, 6)
    kept = json.loads(typed(node, "--history", "--json").stdout)["comparisons"]
    assert kept[1] == document
    assert len(kept) == 2
    table = typed(node, "--history").stdout.splitlines()
    assert [line.split()[-1] for line in table] == ["file", "held.jsonl", "held.jsonl"]


@pytest.mark.slow
def test_what_cannot_be_compared_is_one_sentence(node: Path, tmp_path: Path) -> None:
    missing = typed(node, tmp_path / "none.jsonl")
    assert (missing.returncode, missing.stdout) == (65, "")
    assert missing.stderr.endswith("[data.missing]\n")
    assert missing.stderr.count("\n") == 1
    as_json = typed(node, tmp_path / "none.jsonl", "--json")
    assert json.loads(as_json.stdout)["error"]["reason"] == "data.missing"
    fresh = decaf_node(
        *("eval", node / "held.jsonl", "--config", node / "config.toml"),
        *("--state", tmp_path, "--runtime", tmp_path),
    )
    assert (fresh.returncode, "[export.nothing-saved]" in fresh.stderr) == (75, True)
    unset = decaf_node("eval", node / "held.jsonl", "--config", tmp_path / "none.toml", "--state", node / "state")
    assert (unset.returncode, "[settings.missing]" in unset.stderr) == (78, True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--alone",), "eval.no-file"),
        (("--steps", "3"), "eval.no-file"),
        (("held.jsonl", "--steps", "3"), "eval.steps-of-what"),
        (("held.jsonl", "--history"), "eval.file-or-history"),
        (("held.jsonl", "--node", "10.0.0.5:7435"), "eval.only-here"),
        (("--history", "--node", "10.0.0.5:7435"), "eval.only-here"),
    ],
)
def test_options_that_do_not_go_together(arguments: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    done = decaf_node("eval", *arguments, "--runtime", tmp_path)
    assert done.returncode == 64
    assert done.stderr.endswith(f"[{reason}]\n")


@pytest.mark.slow
def test_where_nothing_can_be_kept_it_is_one_sentence(node: Path, tmp_path: Path) -> None:
    shutil.copytree(node / "state", tmp_path / "state", symlinks=True)
    shutil.rmtree(tmp_path / "state/evaluations", ignore_errors=True)
    (tmp_path / "state/evaluations").touch()
    done = decaf_node(
        *("eval", node / "held.jsonl", "--config", node / "config.toml"),
        *("--state", tmp_path / "state", "--runtime", tmp_path),
    )
    assert (done.returncode, done.stderr.count("\n")) == (77, 1)
    assert done.stderr.endswith("[disk.not-a-folder]\n")


@pytest.mark.e2e
def test_beside_a_running_node(node: Path) -> None:
    """The daemon is real and its trainer scripted, so the adapter is put there by hand."""
    with mesh() as make:
        a = make("a", round={"limit": 2}).start()
        a.until(lambda status: status.phase == "done" and status.saved_round == 2)
        asked = (node / "held.jsonl", "--config", node / "config.toml", "--state", a.state, "--runtime", a.runtime)
        scripted = decaf_node("eval", *asked)
        assert (scripted.returncode, "[export.not-an-export]" in scripted.stderr) == (65, True)
        shutil.copytree(node / "state/export/saved", a.state / "export/real")
        (a.state / "export/adapter").unlink()
        (a.state / "export/adapter").symlink_to("real")
        done = decaf_node("eval", *asked, "--json")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert (document["round"], document["steps"]) == (2, sum(row.steps for row in a.rounds()))
        assert a.status().problem == ""


@pytest.mark.e2e
def test_a_real_encoder_on_real_news(tmp_path: Path) -> None:
    """A node that has seen two topics only, and compares itself on all that it was told of."""
    articles, topics = asset("bbcnews/data"), ("politics", "tech")
    rows = [
        {"text": path.read_text(encoding="latin-1"), "label": topic}
        for topic in topics
        for path in sorted((articles / topic).glob("*.txt"))[:60]
    ]
    held = write_rows(tmp_path / "held.jsonl", rows[::3])
    train = write_rows(tmp_path / "train.jsonl", [row for number, row in enumerate(rows) if number % 3])
    saved_node(
        tmp_path,
        rounds=4,
        model={"path": str(asset("minilm")), "labels": list(topics)},
        lora={"r": 8, "lora_alpha": 16, "layers_to_transform": [4, 5]},
        data={"train": [str(train)], "max_length": 64},
    )
    done = typed(tmp_path, held, "--alone", "--steps", "2", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    accuracies = {name: model["accuracy"] for name, model in found["models"].items()}
    assert accuracies["mesh"] >= 0.9
    assert accuracies["base"] < accuracies["mesh"]
    over = found["mesh_over"]["base"]["accuracy"]
    assert over["won"] - over["lost"] == round(40 * over["accuracy"])
    assert not over["noise"]


DOCUMENT: dict[str, Any] = {
    "time": 1_700_000_000.0,
    "file": "/data/held.jsonl",
    "round": 7,
    "steps": 1200,
    "examples": 1,
    "models": {"base": {"loss": 3.5, "accuracy": None}, "mesh": {"loss": 2.25, "accuracy": None}},
    "mesh_over": {"base": {"loss": {"loss": -1.25, "error": None, "noise": True}, "accuracy": None}},
}


def test_a_task_without_labels_has_losses_only() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    for part in comparison_screen(DOCUMENT):
        console.print(part)
    one = {"base": {"loss": {"loss": -1.25, "error": float("inf"), "noise": True}, "accuracy": None}}
    console.print(*comparison_screen({**DOCUMENT, "mesh_over": one}))  # as it is when it has just been found
    console.print(history_table([DOCUMENT]))
    text = console.export_text()
    assert text.count("loss -1.250 ± unknown, within noise.") == 2
    assert "The mesh over base model: loss -1.250 ± unknown, within noise." in text
    assert "add --alone, which trains 1,200 steps" in text
    assert "3.500" in text.splitlines()[-1]
