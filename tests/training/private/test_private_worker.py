"""The built-in trainer with a budget, as the daemon has it: a process that may be killed at any time."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from decaf_node.link import PrivacySpent, RoundTrained, StartTraining, TrainerFailed, TrainerReady
from decaf_node.lowrank.codec import read_snapshot
from decaf_node.settings import Settings
from tests.training.fake_daemon import Worker, running_worker
from tests.training.private.setup import BUDGET, private_settings

pytestmark = pytest.mark.e2e


def begin(worker: Worker, settings: Settings, account: str | None, start: StartTraining | None = None) -> PrivacySpent:
    """Start the trainer, with an account from before if there is one; return how its budget stands."""
    if account is not None:
        account_of(worker).write_text(account)
    worker.daemon.start(settings, start)
    return worker.daemon.expect(PrivacySpent)


def account_of(worker: Worker) -> Path:
    return worker.daemon.spool.parent / "privacy.json"


def test_a_kill_forgets_no_step_that_has_left_the_process(tmp_path: Path) -> None:
    settings = private_settings(tmp_path, privacy={**BUDGET, "steps": 30})
    with running_worker() as worker:
        whole = begin(worker, settings, None).left
        worker.daemon.whole_round(evaluated=False)
        worker.daemon.expect(RoundTrained)  # the second; nothing was ever saved
        worker.process.send_signal(signal.SIGKILL)
        assert worker.exit_code() == -signal.SIGKILL
        account = account_of(worker).read_text()
    with running_worker() as worker:
        again = begin(worker, settings, account)
        assert (again.steps, again.left) == (8, whole - 8)
        assert 0 < again.spent < 8.0
        trained = worker.daemon.expect(RoundTrained)
        assert trained.steps == 4
        told = worker.daemon.expect(PrivacySpent)
        assert (told.steps, told.left) == (12, whole - 12)


def test_a_saved_round_goes_on_with_its_optimizer_and_its_budget(tmp_path: Path) -> None:
    settings = private_settings(tmp_path, privacy={**BUDGET, "steps": 30}, round={"steps": 4})
    with running_worker() as worker:
        whole = begin(worker, settings, None).left
        trained, _ = worker.daemon.whole_round()
        before = read_snapshot(Path(trained.snapshot.path))[1]
        saved = worker.daemon.save_between_rounds(2, tmp_path / "saved")
        account = account_of(worker).read_text()
    with running_worker() as worker:
        again = begin(worker, settings, account, StartTraining(3, saved[0].snapshot, saved[0].trainer))
        assert (again.steps, again.left) == (8, whole - 8)
        after = read_snapshot(Path(worker.daemon.expect(RoundTrained).snapshot.path))[1]
        assert all((before.products[name].b != after.products[name].b).any() for name in before.products)
    with running_worker() as worker:  # the account is lost, and the adapter has had steps
        worker.daemon.welcome(settings)
        worker.daemon.expect(TrainerReady)
        worker.daemon.send(StartTraining(3, saved[0].snapshot, saved[0].trainer))
        told = worker.daemon.expect(TrainerFailed)
        assert (told.reason, told.exit_code, told.fatal) == ("privacy.trained-without", 78, True)
        assert worker.exit_code() == 78
        assert "Traceback" not in worker.said()
