"""Own data alone: the node's own training, kept, gone on with, and bounded in number."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from decaf_node.errors import NotAllowed, TryAgain
from decaf_node.settings import Settings
from decaf_node.training.own_alone import KEPT, own_alone
from tests.training.tiny import classifier_settings, make_bert, topic_rows, write_rows


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("alone")
    model = make_bert(folder / "bert", dropout=0.1)
    return classifier_settings(model, write_rows(folder / "rows.jsonl", topic_rows(8)))


def steps_of(settings: Settings, steps: int, folder: Path) -> tuple[dict[str, torch.Tensor], list[int]]:
    told: list[int] = []
    exported = own_alone(settings, "base", steps, folder, told.append)
    return load_file(exported / "adapter_model.safetensors"), told


def runs(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.iterdir())


@pytest.mark.slow
def test_a_run_is_kept_and_a_longer_one_goes_on_from_it(settings: Settings, tmp_path: Path) -> None:
    whole, told = steps_of(settings, 5, tmp_path / "whole")
    assert told
    assert told[-1] <= 5
    steps_of(settings, 3, tmp_path / "parts")
    parts, told = steps_of(settings, 5, tmp_path / "parts")
    assert min(told) > 3
    assert runs(tmp_path / "parts") == [5]
    assert parts.keys() == whole.keys()
    for name, tensor in parts.items():
        assert torch.equal(tensor, whole[name]), name
    # alone, labels weigh as they are in any case
    weighed = settings.training.model_copy(update={"balance_labels": True})
    again, told = steps_of(settings.model_copy(update={"training": weighed}), 5, tmp_path / "parts")
    assert told == []
    assert all(torch.equal(tensor, again[name]) for name, tensor in parts.items())


@pytest.mark.slow
def test_other_settings_are_another_run_and_only_some_are_kept(settings: Settings, tmp_path: Path) -> None:
    for steps in range(KEPT + 1, 0, -1):  # a shorter one is no start for a longer one
        steps_of(settings, steps, tmp_path)
    assert runs(tmp_path) == list(range(1, KEPT + 1))
    seeded = settings.model_copy(update={"training": settings.training.model_copy(update={"seed": 7})})
    steps_of(seeded, 2, tmp_path)
    assert len(runs(tmp_path)) == KEPT
    assert runs(tmp_path).count(2) == 2


def test_two_at_once_do_not_meet_and_what_was_killed_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / ".training-killed" / "run").mkdir(parents=True)
    holder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(TryAgain) as caught:
        steps_of(settings, 1, tmp_path)
    assert caught.value.reason == "alone.busy"
    assert [path.name for path in tmp_path.iterdir()] == [".training-killed"]
    os.close(holder)
    steps_of(settings, 1, tmp_path)
    assert runs(tmp_path) == [1]


def test_what_cannot_be_trained_again_is_refused(settings: Settings, tmp_path: Path) -> None:
    script = settings.model_copy(update={"training": settings.training.model_copy(update={"trainer": "external"})})
    private = settings.model_copy(update={"privacy": settings.privacy.model_copy(update={"epsilon": 1.0})})
    for refused, reason in ((script, "alone.external-trainer"), (private, "alone.private")):
        with pytest.raises(NotAllowed) as caught:
            steps_of(refused, 2, tmp_path)
        assert caught.value.reason == reason
