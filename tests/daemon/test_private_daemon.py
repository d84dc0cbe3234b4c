"""Real daemons with real trainers, one of them with a privacy budget that is soon spent."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.processes import Daemon, mesh
from tests.training.tiny import LABELS, make_bert, topic_rows, write_rows

pytestmark = pytest.mark.e2e
PATIENCE = 120.0


def maker(make: Callable[..., Daemon], folder: Path) -> Callable[..., Daemon]:
    """Return a maker of nodes that train a small classifier by the built-in trainer."""
    model = make_bert(folder / "bert")
    rows = write_rows(folder / "rows.jsonl", topic_rows(16))

    def made(name: str, *peers: Daemon, **sections: Any) -> Daemon:
        task = {"task": "sequence-classification", "pooling": "mean", "labels": LABELS, "device": "cpu"}
        return make(
            name,
            *peers,
            model={"path": str(model), **task},
            data={"train": [str(rows)], "evaluation_fraction": 0.25, "max_length": 16},
            lora={"r": 2},
            training={"threads": 1},
            script={"per_device_train_batch_size": 4, "learning_rate": 1e-2},
            round={"steps": 3, "seconds": 1.0, "overlap": False, "wait_floor": 2.0, "wait_ceiling": 4.0},
            **sections,
        )

    return made


BUDGET = {"epsilon": 4.0, "delta": 1e-3, "max_grad_norm": 1.0, "steps": 7}


def test_a_node_whose_budget_is_spent_says_so_and_goes_on_mixing(tmp_path: Path) -> None:
    with mesh() as make:
        node = maker(make, tmp_path)
        b = node("b", privacy={"share_metrics": True}).start("--built-in")
        a = node("a", b, privacy=BUDGET).start("--built-in")
        spent = a.until(lambda status: status.privacy is not None and status.privacy.steps_left == 0, PATIENCE)
        assert spent.privacy is not None
        assert 3.9 < spent.privacy.spent <= spent.privacy.epsilon == 4.0
        assert spent.privacy.steps >= 7
        assert "privacy budget is spent" in a.until(lambda status: status.problem != "").problem
        assert "trains no more" in a.log()
        onward = a.until(lambda status: status.mixes > spent.mixes + 3, PATIENCE)  # its rounds go on, without steps
        assert onward.last_round is not None
        assert onward.last_round.steps == 0
        assert onward.trainer.loss is None
        assert onward.privacy == spent.privacy
        other = b.until(lambda status: status.mixes > 3)
        assert (other.privacy, other.problem) == (None, "")
        with a.client() as client:
            (seen,) = client.peers()
        assert seen.loss is not None  # b shares its losses
        with b.client() as client:
            (seen,) = client.peers()
        assert seen.loss is None  # and a does not
        a.signal(signal.SIGKILL)
        a.wait()
        a.start("--built-in")
        again = a.until(lambda status: status.privacy is not None and status.mixes > onward.mixes, PATIENCE)
        assert again.privacy == spent.privacy
        for daemon in (a, b):
            daemon.signal(signal.SIGTERM)
        assert [daemon.wait() for daemon in (a, b)] == [0, 0]


def test_what_a_budget_cannot_have_ends_the_daemon_in_a_sentence(tmp_path: Path) -> None:
    with mesh() as make:
        a = maker(make, tmp_path)("a", privacy={**BUDGET, "delta": 0.5}).start("--built-in")
        assert a.wait(PATIENCE) == 78
        said = [line for line in a.log().splitlines() if line.startswith("error: ")]
        assert len(said) == 1
        assert "[privacy.delta-too-large]" in said[0]
        assert "Traceback" not in a.log()
