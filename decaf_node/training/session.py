"""What the trainer does for the daemon: the protocol of a round, and every request in between.

It knows a live adapter and a link, and nothing of transformers' Trainer: ``callback.py`` tells it of steps and losses,
and hands in what only the Trainer has (saving, restoring, evaluating).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from decaf_node.errors import BadData, Bug, DecafError
from decaf_node.link import (
    AdoptState,
    EndRound,
    Evaluate,
    Evaluated,
    EvaluatedNow,
    File,
    InspectSnapshot,
    Message,
    MixRound,
    Pause,
    PrivacySpent,
    Progress,
    Resume,
    RoundMixed,
    RoundTrained,
    SaveFailed,
    SaveState,
    StartTraining,
    StateAdopted,
    StateSaved,
    Stop,
    TrainerReady,
)
from decaf_node.settings import RoundSection
from decaf_node.training.evaluate import Evaluation
from decaf_node.training.exchange import Exchange
from decaf_node.training.link import DaemonGone, Link

PROGRESS_SECONDS = 1.0


class Host(Protocol):
    """What the session asks of the Trainer around it."""

    def restore(self, snapshot: File, trainer: File | None) -> None:
        """Load a saved state."""

    def save(self, folder: Path, round: int) -> tuple[File, File, Path]:
        """Write the state into ``folder``; return the adapter, the trainer's state and the export folder."""

    def evaluate(self, between: Callable[[], None]) -> Evaluation | None:
        """Score the held-out part, if there is one; call ``between`` now and then."""

    @property
    def own_labels(self) -> tuple[float, ...]:
        """The part of the node's own examples that each label has; empty where labels are not weighed."""

    def weigh_labels(self, mesh: Sequence[float]) -> None:
        """Weigh labels from now on as in these parts of them in the whole mesh."""


class Budget(Protocol):
    """What the session asks of an account of the privacy budget; see ``private.account``."""

    @property
    def is_spent(self) -> bool:
        """No step is left."""

    def report(self) -> PrivacySpent:
        """Say how the budget stands."""


@dataclass
class Tally:
    """The local steps of one round. seconds do not count what is spent waiting."""

    steps: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_steps: int = 0

    @property
    def loss(self) -> float | None:
        """Its mean; None before the first is known."""
        return self.loss_sum / self.loss_steps if self.loss_steps else None


class Session:
    """One trainer's conversation with its daemon, from ``TrainerReady`` to ``Stop``.

    budget: of differential privacy, where there is one. Once it is spent the session takes over: rounds go on without
    local steps, each as long as the last with some, so that the node still gives and takes what mixing makes of its
    adapter. That costs nothing of the budget: it looks at no example. (After a restart with a spent budget a round is
    ``round.seconds`` long.)
    """

    def __init__(
        self,
        link: Link,
        rounds: RoundSection,
        exchange: Exchange,
        host: Host,
        clock: Callable[[], float] = time.monotonic,
        budget: Budget | None = None,
    ) -> None:
        self._link = link
        self._rounds = rounds
        self._exchange = exchange
        self._host = host
        self._clock = clock
        self._budget = budget
        self._pace = rounds.seconds
        self._round = 0
        self._ended = 0  # the rounds up to this one end with the next step
        self._awaited: int | None = None
        self._tally = Tally()
        self._paused = False
        self._stopped = False
        self._mark = 0.0
        self._told = 0.0
        self._evaluated = 0
        self._put_off: deque[Message] = deque()

    # --- what the callback calls -------------------------------------------------------------------------------

    def begin(self, ready: TrainerReady) -> None:
        """Say that the model is loaded, and wait for the order to start."""
        self._link.send(ready)
        self._serve_while(lambda: self._round == 0)
        self._tell_budget()
        self._serve_while(self._waiting)
        self._rest()

    def step_done(self) -> bool:
        """Count an optimizer step and serve what has come; say whether the loss so far is wanted."""
        now = self._clock()
        self._tally.steps += 1
        self._tally.seconds += now - self._mark
        self._mark = now
        self._exchange.trained()
        self._serve_what_came()
        return self._is_trained() or now - self._told >= PROGRESS_SECONDS

    def loss_known(self, mean: float, steps: int) -> None:
        """Take the mean loss of the last ``steps`` steps; publish the round if it is complete.

        Raises BadData if the loss is not finite: nothing of such a round leaves this process.
        """
        if not math.isfinite(mean):
            raise BadData(
                "training.loss-not-finite",
                f"The loss of round {self._round} is {mean}; lower the learning rate or look at the data.",
            )
        self._tally.loss_sum += mean * steps
        self._tally.loss_steps += steps
        if self._is_trained():
            self._finish_round()
        else:
            self._tell_progress()

    def evaluation_known(self, evaluation: Evaluation) -> None:
        """Pass on what a user's own Trainer has evaluated, once a round."""
        if self._round - 1 > self._evaluated:
            self._evaluated = self._round - 1
            self._send_evaluated(self._evaluated, evaluation)

    @property
    def started(self) -> bool:
        return self._round > 0

    @property
    def stopped(self) -> bool:
        return self._stopped

    # --- rounds ------------------------------------------------------------------------------------------------

    def _is_trained(self) -> bool:
        """Is the round under way complete, and its forerunner mixed?"""
        if self._awaited is not None or self._tally.steps == 0 or self._over():
            return False
        if self._resting() or self._round <= self._ended:
            return True
        rounds = self._rounds
        return self._tally.steps >= rounds.steps if rounds.steps else self._tally.seconds >= rounds.seconds

    def _finish_round(self) -> None:
        self._publish()
        self._tell_budget()
        self._serve_while(self._waiting)
        self._rest()

    def _publish(self) -> None:
        tally, self._tally = self._tally, Tally()
        file, rank = self._exchange.publish(self._round, trained=tally.steps > 0)
        if self._rounds.steps and tally.steps:
            self._pace = tally.seconds * self._rounds.steps / tally.steps
        self._awaited = self._round
        loss, seconds = tally.loss or 0.0, round(tally.seconds, 6)
        self._link.send(RoundTrained(self._round, file, rank, tally.steps, loss, seconds, self._host.own_labels))
        self._round += 1

    def _resting(self) -> bool:
        """The privacy budget is spent: there will be no step any more."""
        return self._budget is not None and self._budget.is_spent

    def _rest(self) -> None:
        """If the privacy budget is spent, go on with rounds without steps until the daemon has enough."""
        while self._resting() and not self._stopped and self._tally.steps == 0:
            self._serve_until(self._clock() + self._pace)
            self._serve_while(self._waiting)
            if not self._stopped:
                self._publish()
                self._serve_while(self._waiting)

    def _tell_budget(self) -> None:
        if self._budget is not None and not self._stopped:
            self._link.send(self._budget.report())

    def _over(self) -> bool:
        return 0 < self._rounds.limit < self._round

    def _waiting(self) -> bool:
        at_once = self._rounds.overlap and not self._resting()
        return self._paused or self._over() or (self._awaited is not None and not at_once)

    def _tell_progress(self) -> None:
        now = self._clock()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            speed = self._tally.steps / self._tally.seconds if self._tally.seconds else 0.0
            self._link.send(Progress(self._round, self._tally.steps, self._tally.loss, speed))

    # --- serving -----------------------------------------------------------------------------------------------

    def _serve_what_came(self) -> None:
        try:
            while not self._stopped and (message := self._next()) is not None:
                self._handle(message)
        except DaemonGone:
            self._stopped = True
        self._serve_while(self._waiting)

    def _next(self) -> Message | None:
        """Return the next message if one is here: first those that came while the model was evaluated."""
        return self._put_off.popleft() if self._put_off else self._link.poll()

    def _serve_while(self, condition: Callable[[], bool]) -> None:
        """Block on the link; the time does not count as training."""
        try:
            while not self._stopped and condition():
                self._handle(self._next() or self._link.wait())
        except DaemonGone:
            self._stopped = True
        self._mark = self._clock()

    def _serve_until(self, end: float) -> None:
        try:
            while not self._stopped and self._round > self._ended and (left := end - self._clock()) > 0:
                message = self._next() or self._link.wait_for(left)
                if message is not None:
                    self._handle(message)
        except DaemonGone:
            self._stopped = True

    def _handle(self, message: Message) -> None:
        match message:
            case StartTraining(round, snapshot, trainer):
                if snapshot is not None:
                    self._host.restore(snapshot, trainer)
                self._round = round
            case EndRound(round):
                self._ended = round
            case Evaluate():
                self._evaluate_now()
            case InspectSnapshot(snapshot, own):
                self._link.send(self._exchange.inspect(snapshot, own))
            case MixRound():
                self._mix(message)
            case AdoptState(candidates, base):
                self._adopt(candidates, base)
            case SaveState(round, folder):
                self._save(round, Path(folder))
            case Pause():
                self._paused = True
            case Resume():
                self._paused = False
            case Stop():
                self._stopped = True
            case _:
                raise Bug("training.unexpected-message", f"The daemon sent {type(message).__name__} to a trainer.")

    def _mix(self, message: MixRound) -> None:
        started = self._clock()
        mixed = self._exchange.mix(message.edges)
        if message.label_parts:
            self._host.weigh_labels(message.label_parts)
        seconds = self._clock() - started
        self._link.send(
            RoundMixed(message.round, len(message.edges), mixed.tail, mixed.interference, mixed.norm, seconds)
        )
        if self._awaited is not None and message.round >= self._awaited:
            self._awaited = None
        self._round = max(self._round, message.round + 1)
        if message.round % self._rounds.evaluate_every == 0:
            self._evaluate(message.round)
        self._mark = self._clock()

    def _adopt(self, candidates: tuple[File, ...], base: File | None) -> None:
        chosen, round = self._exchange.adopt(candidates, base)
        self._round = max(self._round, round)
        self._link.send(StateAdopted(round, chosen.digest))
        self._mark = self._clock()

    def _save(self, round: int, folder: Path) -> None:
        try:
            snapshot, trainer, export = self._host.save(folder, round)
        except DecafError as error:
            self._link.send(SaveFailed(round, error.message))
        else:
            self._link.send(StateSaved(round, snapshot, trainer, str(export)))
        self._mark = self._clock()

    def _evaluate(self, round: int) -> None:
        evaluation = self._host.evaluate(self._serve_neighbours)
        if evaluation is not None:
            self._evaluated = round
            self._send_evaluated(round, evaluation)

    def _evaluate_now(self) -> None:
        mixed = (self._round if self._awaited is None else self._awaited) - 1
        found = self._host.evaluate(self._serve_neighbours) or Evaluation(0.0, None, 0, 0.0)
        self._link.send(EvaluatedNow(max(0, mixed), found.loss, found.accuracy, found.examples, found.seconds))
        self._mark = self._clock()

    def _serve_neighbours(self) -> None:
        """Between two batches of an evaluation: neighbours wait for our look at their snapshots, the rest can wait.

        The daemon hears that we live: it ends a trainer that says nothing for too long.
        """
        try:
            self._tell_progress()
            while (message := self._link.poll()) is not None:
                if isinstance(message, InspectSnapshot):
                    self._handle(message)
                else:
                    self._put_off.append(message)
        except DaemonGone:
            self._stopped = True

    def _send_evaluated(self, round: int, evaluation: Evaluation) -> None:
        self._link.send(Evaluated(round, evaluation.loss, evaluation.accuracy, evaluation.examples, evaluation.seconds))
