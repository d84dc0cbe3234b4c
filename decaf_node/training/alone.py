"""Training without a mesh: ``python -m decaf_node.training.alone CONFIG.toml ...``.

Each configuration is trained in turn for ``round.limit`` rounds by the very code that a node runs, without daemon,
socket or exchange: what a node would reach by itself, or all data in one place. One JSON line a round goes to stdout:
``{"config": ..., "round": ..., "loss": ..., "accuracy": ...}`` (accuracy null where there is none).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

from decaf_node.errors import BadSettings, DecafError, TryAgain
from decaf_node.link import (
    Evaluated,
    FromTrainer,
    Message,
    MixRound,
    PrivacySpent,
    Progress,
    RoundMixed,
    RoundTrained,
    SaveFailed,
    SaveState,
    StartTraining,
    StateSaved,
    Stop,
    TrainerReady,
    Welcome,
)
from decaf_node.settings import Settings, load_settings
from decaf_node.training.libraries import demand_libraries
from decaf_node.training.link import DaemonGone
from decaf_node.training.offline import go_offline

AFRESH = StartTraining(1)


class LinkToNobody:
    """A ``Link`` that answers as a daemon without neighbours would, and stops after the last round.

    It also stops when the privacy budget is spent, for nothing changes any more.

    report:   called with round, loss and accuracy once a round
    start:    what to begin with
    keep:     folder for the state after the last round; nowhere by default
    progress: called with the steps of the round under way, now and then

    step_seconds is how long a step of the last round took.
    """

    def __init__(
        self,
        settings: Settings,
        report: Callable[[int, float, float | None], None],
        start: StartTraining = AFRESH,
        keep: Path | None = None,
        progress: Callable[[int], None] = lambda step: None,
    ) -> None:
        self._rounds = settings.round
        self._report = report
        self._start = start
        self._last: Message = Stop() if keep is None else SaveState(settings.round.limit, str(keep))
        self._progress = progress
        self._answers: deque[Message] = deque()
        self._loss = 0.0
        self.step_seconds = 0.0

    def send(self, message: FromTrainer) -> None:
        match message:
            case TrainerReady():
                self._answers.append(self._start)
            case Progress(step=step):
                self._progress(step)
            case RoundTrained(round, snapshot, _, steps, loss, seconds):
                Path(snapshot.path).unlink()
                self._loss = loss
                self.step_seconds = seconds / max(1, steps)
                self._answers.append(MixRound(round))
            case PrivacySpent(left=0):
                self._answers.append(Stop())
            case RoundMixed(round) if round % self._rounds.evaluate_every:
                self._end_round(round, None)
            case Evaluated(round, accuracy=accuracy):
                self._end_round(round, accuracy)
            case StateSaved():
                self._answers.append(Stop())
            case SaveFailed(problem=problem):
                raise TryAgain("save.failed", problem)

    def poll(self) -> Message | None:
        return self._answers.popleft() if self._answers else None

    def wait(self) -> Message:
        if not self._answers:
            raise DaemonGone
        return self._answers.popleft()

    def wait_for(self, seconds: float) -> Message | None:
        return self.wait()

    def close(self) -> None:
        return

    def _end_round(self, round: int, accuracy: float | None) -> None:
        self._report(round, self._loss, accuracy)
        if round >= self._rounds.limit:
            self._answers.append(self._last)


def main(arguments: list[str] | None = None) -> int:
    """Train every configuration; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m decaf_node.training.alone", description=__doc__)
    parser.add_argument("config", nargs="+", type=Path, help="settings of a node, with round.limit")
    logging.basicConfig(format="%(levelname)s %(message)s")
    go_offline()
    try:
        configs = parser.parse_args(arguments).config
        demand_libraries()
        for config in configs:
            train_alone(config)
    except DecafError as error:
        logging.error("%s", error)
        return error.exit_code
    return 0


def train_alone(config: Path) -> None:
    """Train one configuration to its last round and print its lines. Raises DecafError."""
    settings = load_settings(config, os.environ)
    if settings.round.limit < 1:
        raise BadSettings("alone.no-limit", f"{config} has no round.limit; without it training has no end.")

    def report(round: int, loss: float, accuracy: float | None) -> None:
        line = {"config": str(config), "round": round, "loss": loss, "accuracy": accuracy}
        print(json.dumps(line), flush=True)

    train(settings, LinkToNobody(settings, report))


def train(settings: Settings, link: LinkToNobody) -> None:
    """Train without exchange until ``link``, made of the same settings, has enough. Raises DecafError."""
    from decaf_node.training.assembly import assemble

    document = settings.model_dump(mode="json")
    document["round"] |= {"overlap": False}  # by the same algorithm: that of dlora-fa leaves A as it is
    with tempfile.TemporaryDirectory(prefix="decaf-node-alone-") as scratch:
        spool = Path(scratch, "spool")
        spool.mkdir()
        welcome = Welcome("", "alone", document, str(spool), str(Path(scratch, "privacy.json")))
        assemble(Settings.model_validate(document), link, welcome, Path(scratch)).trainer.train()


if __name__ == "__main__":
    sys.exit(main())
