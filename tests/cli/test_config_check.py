"""``decaf-node config check``: everything wrong that can be seen without loading a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decaf_node.cli.config import find_problems
from tests.cli.command import decaf_node


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings that are fine."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jsonl").write_text('{"text": "x"}\n')
    path = tmp_path / "config.toml"
    path.write_text('[model]\npath = "model"\n[data]\ntrain = ["data/*.jsonl"]\n')
    return path


def reasons(config: Path) -> list[str]:
    return [finding.reason for finding in find_problems(config)]


def test_fine_settings_are_fine(config: Path) -> None:
    done = decaf_node("config", "check", "--config", config)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{config} is fine.\n", "")
    assert json.loads(decaf_node("config", "check", "--config", config, "--json").stdout)["findings"] == []


@pytest.mark.slow
def test_findings_are_printed_and_exit_with_78(config: Path) -> None:
    (config.parent / "data/a.jsonl").unlink()
    (config.parent / "model/config.json").unlink()
    done = decaf_node("config", "check", "--config", config)
    assert done.returncode == 78
    assert [line.split("[")[-1] for line in done.stdout.splitlines()] == ["model.not-a-model]", "data.missing]"]
    assert done.stderr == ""
    as_json = decaf_node("config", "check", "--config", config, "--json")
    assert as_json.returncode == 78
    assert [f["reason"] for f in json.loads(as_json.stdout)["findings"]] == ["model.not-a-model", "data.missing"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[model]\npath = 'model'\nsize = 3\n[data]\ntrain = ['data/a.jsonl']\n", "settings.unknown-key"),
        ("[model]\npath = 'model'\n[data]\ntrain = ['data/a.jsonl']\n[lora]\nr = 0\n", "settings.bad-value"),
        ("nonsense", "settings.not-toml"),
        ("[model]\npath = 'nowhere'\n[data]\ntrain = ['data/a.jsonl']\n", "model.missing"),
        ("[model]\npath = 'model'\ngguf_file = 'm.gguf'\n[data]\ntrain = ['data/a.jsonl']\n", "model.missing"),
        (
            "[model]\npath = 'model'\ntask = 'sequence-classification'\n[data]\ntrain = ['data/a.jsonl']\n",
            "model.labels-missing",
        ),
        ("[model]\npath = 'model'\n[data]\ntrain = ['data/a.jsonl']\nevaluation = ['b.csv']\n", "data.missing"),
        (
            "[security]\nca = 'ca.pem'\ncertificate = 'config.toml'\nkey = 'config.toml'\n"
            "[model]\npath = 'model'\n[data]\ntrain = ['data/a.jsonl']\n",
            "certificate.missing",
        ),
        (
            "[security]\nca = 'ca.pem'\n[model]\npath = 'model'\n[data]\ntrain = ['data/a.jsonl']\n",
            "settings.bad-value",
        ),
    ],
)
def test_each_mistake_has_its_reason(config: Path, text: str, reason: str) -> None:
    config.write_text(text)
    assert reasons(config) == [reason]


def test_an_empty_data_file_is_found(config: Path) -> None:
    (config.parent / "data/b.jsonl").touch()
    assert reasons(config) == ["data.empty"]


def test_no_settings_at_all(tmp_path: Path) -> None:
    assert reasons(tmp_path / "none.toml") == ["settings.missing"]


def test_a_privacy_budget_that_cannot_be_kept_is_found(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = config.read_text()
    budget = "[privacy]\nepsilon = 8.0\ndelta = 1e-5\nmax_grad_norm = 1.0\n"
    config.write_text(f"{fine}{budget}")
    assert reasons(config) == ["privacy.no-plan"]
    arguments = "[training]\ntrainer = 'external'\narguments = { gradient_accumulation_steps = 4 }\n"
    config.write_text(f"{fine}{budget}steps = 100\n{arguments}")
    assert reasons(config) == ["privacy.external-trainer", "privacy.argument"]
    config.write_text(f"{fine}{budget}steps = 100\n")
    assert reasons(config) == []
    monkeypatch.setattr("decaf_node.training.private.demands.find_spec", lambda name: None)
    assert reasons(config) == ["privacy.no-opacus"]


def test_losses_are_not_shared_under_a_budget(config: Path) -> None:
    budget = "[privacy]\nepsilon = 8.0\ndelta = 1e-5\nmax_grad_norm = 1.0\nshare_metrics = true\n"
    config.write_text(config.read_text() + budget)
    (finding,) = find_problems(config)
    assert finding.reason == "settings.bad-value"
    assert "share_metrics" in finding.message


def test_folders_of_images_are_looked_through(config: Path) -> None:
    folder = config.parent / "pets"
    fine = "[model]\npath = 'model'\ntask = '{}'\nlabels = ['cat', 'dog']\n[data]\ntrain = ['{}']\n"
    config.write_text(fine.format("image-classification", "pets"))
    assert reasons(config) == ["data.missing"]
    (folder / "cat").mkdir(parents=True)
    assert reasons(config) == ["data.empty"]
    (folder / "cat" / "a.png").touch()
    assert reasons(config) == []
    (folder / "cow").mkdir()
    (folder / "cow" / "b.JPG").touch()
    assert reasons(config) == ["data.unknown-label"]
    config.write_text(fine.format("clip", "data/*.jsonl"))
    assert reasons(config) == ["data.not-a-folder"]
    config.write_text(fine.format("sequence-classification", "pets"))
    assert reasons(config) == ["data.unknown-format"]


def test_a_setting_that_is_not_for_the_task_is_found(config: Path) -> None:
    (config.parent / "pets" / "cat").mkdir(parents=True)
    (config.parent / "pets" / "cat" / "a.png").touch()
    config.write_text(
        "[model]\npath = 'model'\ntask = 'clip'\npooling = 'mean'\nlabels = ['cat']\n"
        "[data]\ntrain = ['pets']\nprompt_column = 'q'\n[training]\nbalance_labels = true\n"
    )
    assert reasons(config) == ["model.not-for-task"] * 3
