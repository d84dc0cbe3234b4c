"""Two real daemons with the built-in trainer: each is asked about clothes that only the other has pictures of.

One of them sends compact snapshots, the other int8.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from decaf_node.daemon.reports import StatusReport
from tests.daemon.processes import Daemon, mesh
from tests.training.pictured import CLOTHES, clothes, make_clip, make_vit

pytestmark = pytest.mark.e2e
PATIENCE = 120.0
CHANCE = 1 / len(CLOTHES)
HALVES = {"a": CLOTHES[:5], "b": CLOTHES[5:]}


def node(make: Callable[..., Daemon], folder: Path, task: str, model: Path, name: str, *peers: Daemon) -> Daemon:
    other = HALVES["b" if name == "a" else "a"]
    return make(
        name,
        *peers,
        model={"path": str(model), "task": task, "labels": CLOTHES, "device": "cpu"},
        data={
            "train": [str(clothes(folder / name, 40, labels=HALVES[name]))],
            "evaluation": [str(clothes(folder / f"{name}-asked", 20, start=100, labels=other))],
        },
        lora={"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        training={"threads": 1},
        mixing={"wire": "compact" if name == "a" else "int8"},
        script={"per_device_train_batch_size": 32, "per_device_eval_batch_size": 100, "learning_rate": 3e-3},
        round={"steps": 5, "overlap": False, "wait_floor": 10.0, "wait_ceiling": 20.0},
    )


def has_learned_from_the_other(status: StatusReport) -> bool:
    report = status.last_round
    accuracy = None if report is None else report.evaluation_accuracy
    return status.mixes > 5 and accuracy is not None and accuracy > 3 * CHANCE


@pytest.mark.parametrize(("task", "make_model"), [("image-classification", make_vit), ("clip", make_clip)])
def test_each_learns_what_only_the_other_sees(task: str, make_model: Callable[[Path], Path], tmp_path: Path) -> None:
    with mesh() as make:
        model = make_model(tmp_path / "model")
        a = node(make, tmp_path, task, model, "a").start("--built-in")
        b = node(make, tmp_path, task, model, "b", a).start("--built-in")
        for daemon in (a, b):
            daemon.until(has_learned_from_the_other, PATIENCE)
            losses = [round.loss for round in sorted(daemon.rounds(), key=lambda round: round.round)]
            assert losses[-1] < losses[0]
        for daemon in (a, b):
            daemon.signal(signal.SIGTERM)
        assert [daemon.wait() for daemon in (a, b)] == [0, 0]
