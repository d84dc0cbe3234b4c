"""The built-in trainer in two processes, as the daemon starts it; whole meshes are in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from decaf_node.daemon.trainer import LAUNCHER, WORKER, command_of
from decaf_node.link import Evaluated, Resume, RoundTrained, StartTraining, Stop, TrainerFailed
from decaf_node.settings import TrainingSection
from tests.training.fake_daemon import running_worker
from tests.training.tiny import LABELS, causal_settings, classifier_settings, make_bert, topic_rows, write_rows

TWO = (*LAUNCHER, "2")


def test_the_daemon_starts_as_many_processes_as_the_settings_say() -> None:
    assert command_of(TrainingSection()) == WORKER
    assert command_of(TrainingSection(processes=3)) == (*LAUNCHER, "3")
    assert command_of(TrainingSection(processes=3, trainer="external")) is None


@pytest.mark.slow
def test_two_processes_train_save_restore_and_stop_as_one(tmp_path: Path) -> None:
    model, rows = make_bert(tmp_path / "bert"), write_rows(tmp_path / "rows.jsonl", topic_rows(12, LABELS))
    settings = classifier_settings(model, rows, training={"processes": 2})
    with running_worker(TWO) as worker:
        worker.daemon.start(settings)
        first = worker.daemon.whole_round()[0]
        assert first.steps == 2
        assert sum(first.label_parts) == pytest.approx(1.0)
        worker.daemon.label_parts = (0.8, 0.15, 0.05)  # which only the first is told
        saved, evaluated = worker.daemon.save_between_rounds(2, tmp_path / "saved")
        worker.daemon.send(Resume())
        onward = worker.daemon.expect(RoundTrained)
        worker.daemon.send(Stop())
        assert worker.exit_code() == 0
        assert "Traceback" not in worker.said()
    with running_worker(TWO) as worker:
        worker.daemon.start(settings, StartTraining(3, saved.snapshot, saved.trainer))
        again, after = worker.daemon.whole_round()
        assert isinstance(after, Evaluated)
        assert after.loss < evaluated.loss
        assert again.loss == pytest.approx(
            onward.loss, rel=1e-5
        )  # optimizer, place in the data, and weights of labels, at both


@pytest.mark.slow
def test_what_does_not_fit_is_told_once_and_ends_all(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(1))
    with running_worker(TWO) as worker:
        worker.daemon.welcome(causal_settings(tmp_path / "none", rows, training={"processes": 2}))
        told = worker.daemon.expect(TrainerFailed)
        assert (told.reason, told.fatal) == ("model.missing", True)
        assert worker.exit_code() == told.exit_code == 65
