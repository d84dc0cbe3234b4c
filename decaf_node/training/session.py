"""What the trainer does for the daemon: the protocol of a round, and every request in between.

It knows a live adapter and a link, and nothing of transformers' Trainer: ``callback.py`` tells it of steps and losses,
and hands in what only the Trainer has (saving, restoring, evaluating).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from decaf_node.errors import BadData, Bug, DecafError
from decaf_node.link import (
    AdoptState,
    Evaluated,
    File,
    InspectSnapshot,
    Message,
    MixEdge,
    MixRound,
    Pause,
    Progress,
    Resume,
    RoundMixed,
    RoundTrained,
    SaveFailed,
    SaveState,
    SnapshotInspected,
    StartTraining,
    StateAdopted,
    StateSaved,
    Stop,
    TrainerReady,
)
from decaf_node.lowrank.adapter import (
    Adapter,
    AdapterEdge,
    MixedAdapter,
    adopt,
    distance,
    is_finite,
    medoid,
    mix_adapters,
    mix_factors,
    norm,
)
from decaf_node.settings import Settings
from decaf_node.training.evaluate import Evaluation
from decaf_node.training.link import DaemonGone, Link
from decaf_node.training.live import LiveAdapter
from decaf_node.training.spool import fetch, publish

PROGRESS_SECONDS = 1.0


class Host(Protocol):
    """What the session asks of the Trainer around it."""

    def restore(self, snapshot: File, trainer: File | None) -> None:
        """Load a saved state."""

    def save(self, folder: Path, round: int) -> tuple[File, File, Path]:
        """Write the state into ``folder``; return the adapter, the trainer's state and the export folder."""

    def evaluate(self) -> Evaluation | None:
        """Score the held-out part, if there is one."""


@dataclass(frozen=True)
class Identity:
    """What goes into each snapshot's header."""

    schema: str
    base: str


@dataclass(frozen=True)
class Published:
    """Our last snapshot. exact: the adapter that it holds bit for bit, while nothing was trained since."""

    file: File
    round: int
    exact: Adapter | None


@dataclass
class Tally:
    """The local steps of one round. seconds do not count what is spent waiting."""

    steps: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_steps: int = 0

    @property
    def loss(self) -> float:
        return self.loss_sum / self.loss_steps


class Session:
    """One trainer's conversation with its daemon, from ``TrainerReady`` to ``Stop``."""

    def __init__(
        self,
        link: Link,
        settings: Settings,
        spool: Path,
        live: LiveAdapter,
        identity: Identity,
        host: Host,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._settings = settings
        self._spool = spool
        self._live = live
        self._identity = identity
        self._host = host
        self._clock = clock
        self._round = 0
        self._awaited: int | None = None
        self._published: Published | None = None
        self._tally = Tally()
        self._paused = False
        self._stopped = False
        self._mark = 0.0
        self._told = 0.0
        self._evaluated = 0

    # --- what the callback calls -------------------------------------------------------------------------------

    def begin(self, ready: TrainerReady) -> None:
        """Say that the model is loaded, and wait for the order to start."""
        self._link.send(ready)
        self._serve_while(lambda: self._round == 0)
        self._serve_while(self._waiting)

    def step_done(self) -> bool:
        """Count an optimizer step and serve what has come; say whether the loss so far is wanted."""
        now = self._clock()
        self._tally.steps += 1
        self._tally.seconds += now - self._mark
        self._mark = now
        if self._published is not None and self._published.exact is not None:
            self._published = Published(self._published.file, self._published.round, None)
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
        rounds = self._settings.round
        if self._awaited is not None or self._tally.steps == 0 or self._over():
            return False
        return self._tally.steps >= rounds.steps if rounds.steps else self._tally.seconds >= rounds.seconds

    def _finish_round(self) -> None:
        adapter = self._live.read()
        if not is_finite(adapter):
            raise BadData(
                "training.factors-not-finite",
                f"The adapter is not finite after round {self._round}; lower the learning rate or look at the data.",
            )
        wire = getattr(torch, self._settings.mixing.wire)
        file = publish(
            self._spool,
            adapter,
            dtype=wire,
            schema=self._identity.schema,
            base=self._identity.base,
            round=self._round,
        )
        exact = adapter if _is_exact(adapter, wire) else None
        self._published = Published(file, self._round, exact)
        tally, self._tally = self._tally, Tally()
        self._awaited = self._round
        self._link.send(
            RoundTrained(self._round, file, self._live.rank, tally.steps, tally.loss, round(tally.seconds, 6))
        )
        self._round += 1
        self._serve_while(self._waiting)

    def _over(self) -> bool:
        return 0 < self._settings.round.limit < self._round

    def _waiting(self) -> bool:
        return self._paused or self._over() or (self._awaited is not None and not self._settings.round.overlap)

    def _tell_progress(self) -> None:
        now = self._clock()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            speed = self._tally.steps / self._tally.seconds if self._tally.seconds else 0.0
            self._link.send(Progress(self._round, self._tally.steps, self._tally.loss, speed))

    # --- serving -----------------------------------------------------------------------------------------------

    def _serve_what_came(self) -> None:
        try:
            while not self._stopped and (message := self._link.poll()) is not None:
                self._handle(message)
        except DaemonGone:
            self._stopped = True
        self._serve_while(self._waiting)

    def _serve_while(self, condition: Callable[[], bool]) -> None:
        """Block on the link; the time does not count as training."""
        try:
            while not self._stopped and condition():
                self._handle(self._link.wait())
        except DaemonGone:
            self._stopped = True
        self._mark = self._clock()

    def _handle(self, message: Message) -> None:
        match message:
            case StartTraining(round, snapshot, trainer):
                if snapshot is not None:
                    self._host.restore(snapshot, trainer)
                self._round = round
            case InspectSnapshot(snapshot, own):
                self._link.send(self._inspect(snapshot, own))
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

    def _inspect(self, snapshot: File, own: File) -> SnapshotInspected:
        try:
            theirs = self._fetch(snapshot)
            if not is_finite(theirs):
                return SnapshotInspected(snapshot.digest, False, 0.0, 0.0, "it holds numbers that are not finite")
            return SnapshotInspected(snapshot.digest, True, distance(theirs, self._own(own)), norm(theirs))
        except DecafError as error:
            return SnapshotInspected(snapshot.digest, False, 0.0, 0.0, error.message)

    def _mix(self, message: MixRound) -> None:
        started = self._clock()
        now = self._live.read()
        tail, interference, size = 0.0, 0.0, norm(now)
        if message.edges:
            mixed = self._mixed(now, [self._edge(edge, now) for edge in message.edges])
            self._live.load(mixed.adapter)
            tail, interference, size = mixed.tail, mixed.interference, mixed.norm
            self._forget_exact()
        seconds = self._clock() - started
        self._link.send(RoundMixed(message.round, len(message.edges), tail, interference, size, seconds))
        if self._awaited is not None and message.round >= self._awaited:
            self._awaited = None
        self._round = max(self._round, message.round + 1)
        if message.round % self._settings.round.evaluate_every == 0:
            self._evaluate(message.round)
        self._mark = self._clock()

    def _mixed(self, now: Adapter, edges: list[AdapterEdge]) -> MixedAdapter:
        algorithm = self._settings.round.algorithm
        if algorithm == "decaf":
            return mix_adapters(now, edges, memory_bytes=self._settings.mixing.memory_bytes)
        return mix_factors(now, edges, frozen_a=algorithm == "dlora-fa")

    def _edge(self, edge: MixEdge, now: Adapter) -> AdapterEdge:
        published = self._published
        if published is not None and published.exact is not None and published.file.digest == edge.own.digest:
            own = now  # the very object: the mix sees that the correction starts from the state itself
        else:
            own = self._fetch(edge.own)
        return AdapterEdge(own=own, theirs=self._fetch(edge.theirs), weight=edge.weight)

    def _adopt(self, candidates: tuple[File, ...], base: File | None) -> None:
        fetched = [fetch(file, self._device) for file in candidates]
        chosen = medoid([adapter for _, adapter in fetched])
        before = None if base is None else self._own(base)
        self._live.load(adopt(fetched[chosen][1], self._live.read(), before))
        self._forget_exact()
        self._round = max(self._round, fetched[chosen][0].round)
        self._link.send(StateAdopted(fetched[chosen][0].round, candidates[chosen].digest))
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
        evaluation = self._host.evaluate()
        if evaluation is not None:
            self._evaluated = round
            self._send_evaluated(round, evaluation)

    def _send_evaluated(self, round: int, evaluation: Evaluation) -> None:
        self._link.send(Evaluated(round, evaluation.loss, evaluation.accuracy, evaluation.examples, evaluation.seconds))

    def _own(self, file: File) -> Adapter:
        published = self._published
        if published is not None and published.exact is not None and published.file.digest == file.digest:
            return published.exact
        return self._fetch(file)

    def _fetch(self, file: File) -> Adapter:
        return fetch(file, self._device)[1]

    def _forget_exact(self) -> None:
        if self._published is not None:
            self._published = Published(self._published.file, self._published.round, None)

    @property
    def _device(self) -> torch.device:
        return next(iter(self._live.layers.values())).a.device


def _is_exact(adapter: Adapter, wire: torch.dtype) -> bool:
    tensors = [*adapter.tensors.values()]
    tensors += [factor for product in adapter.products.values() for factor in (product.a, product.b)]
    return all(tensor.dtype == wire for tensor in tensors)
