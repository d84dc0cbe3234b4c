"""The conversation with the trainer: effects become its messages, in order; what it says becomes events and history."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from decaf_node import link
from decaf_node.daemon.evaluating import Evaluating
from decaf_node.daemon.handover import Handover
from decaf_node.daemon.history import History
from decaf_node.daemon.host import Host
from decaf_node.daemon.lines import RoundLines
from decaf_node.daemon.link_server import LinkServer
from decaf_node.daemon.problems import Problem, problem_of
from decaf_node.daemon.reports import RoundReport
from decaf_node.daemon.tasks import Tasks
from decaf_node.daemon.trainer import Trainer
from decaf_node.daemon.wire import are_parts
from decaf_node.errors import Bug, DecafError, TryAgain, from_exit_code
from decaf_node.mesh import events
from decaf_node.mesh.events import Edge, Snapshot

log = logging.getLogger(__name__)


class Talk:
    """Speaks with the trainer.

    needed:   returns the digests that the machine still needs
    saved:    the snapshot of the state at the start
    handover: for a trainer of another user
    told:     called with the schema when the trainer is ready
    introduce: called when this node may say something else of itself than before
    """

    def __init__(
        self,
        host: Host,
        server: LinkServer,
        trainer: Trainer,
        history: History,
        lines: RoundLines,
        needed: Callable[[], frozenset[str]],
        saved: link.File | None,
        handover: Handover,
        told: Callable[[str], Awaitable[None]],
        tasks: Tasks,
        watched: Callable[[RoundReport], None],
        introduce: Callable[[], None],
    ) -> None:
        self.ready: link.TrainerReady | None = None
        self.progress: link.Progress | None = None  # of the round under way, once it has a step
        self.privacy: link.PrivacySpent | None = None
        self._host = host
        self._server = server
        self._trainer = trainer
        self._history = history
        self._lines = lines
        self._needed = needed
        self._saved = saved
        self._handover = handover
        self._told = told
        self._tasks = tasks
        self._watched = watched
        self._introduce = introduce
        self.evaluating = Evaluating(lambda: self._say(link.Evaluate))
        self._in_turn = asyncio.Lock()
        self._inspecting: defaultdict[str, deque[str]] = defaultdict(deque)
        self._saving: events.SaveRound | None = None
        self._taking = False

    # --- what the machine wants --------------------------------------------------------------------------------------

    def start(self, round: int, resume: bool) -> None:
        """See ``events.StartTraining``."""

        async def make() -> link.Message:
            saved = await self._host.disk(self._host.store.saved) if resume else None
            if saved is None:
                return link.StartTraining(round)
            files = saved.snapshot, saved.trainer
            if self._server.of_another_user:
                files = await self._host.disk(lambda: self._handover.give(*files))
            return link.StartTraining(round, *files)

        self._tell(make)

    def end_round(self, round: int) -> None:
        """See ``events.EndRound``."""
        self._say(lambda: link.EndRound(round))

    def inspect(self, peer: str, digest: str, own: str) -> None:
        """See ``events.InspectSnapshot``."""
        self._inspecting[digest].append(peer)

        async def make() -> link.Message:
            return link.InspectSnapshot(self._file(digest), self._file(own))

        async def drop(_: DecafError) -> None:
            # the trainer was busy for so long that the edge has ended and its snapshots are gone
            self._next_waiting(digest)

        self._tell(make, drop)

    def clipped(self, peer: str, digest: str, factor: float) -> None:
        """What clipping leaves of the weight of this edge, for the history."""
        self._history.clipped(peer, digest, factor)

    def mix(self, round: int, edges: tuple[Edge, ...]) -> None:
        """See ``events.MixRound``."""
        self._history.mixing(round, edges, self._host.traffic.since_mark())
        self._say(
            lambda: link.MixRound(
                round,
                tuple(
                    link.MixEdge(edge.peer, edge.weight, self._file(edge.own), self._file(edge.theirs))
                    for edge in edges
                ),
                self._host.said.labels(self._host.introduction(), self._host.me.label_parts),
            )
        )

    def adopt(self, candidates: tuple[str, ...], base: str | None) -> None:
        """See ``events.AdoptState``."""
        self._say(
            lambda: link.AdoptState(
                tuple(self._file(digest) for digest in candidates), None if base is None else self._file(base)
            )
        )

    def save(self, effect: events.SaveRound) -> None:
        """See ``events.SaveRound``."""
        self._saving = effect

        async def make() -> link.Message:
            place = self._handover if self._server.of_another_user else self._host.store
            folder = await self._host.disk(lambda: place.staging(effect.round))
            return link.SaveState(effect.round, str(folder))

        async def fail(error: DecafError) -> None:
            await self._save_failed(effect.round, error)

        self._tell(make, fail)

    def pause(self) -> None:
        """See ``events.PauseTraining``."""
        self._say(link.Pause)

    def resume(self) -> None:
        """See ``events.ResumeTraining``."""
        self._say(link.Resume)

    def working(self, phase: str) -> bool:
        """Say whether the trainer is to work in this phase of the node, and to be heard of by and by."""
        resting = self.privacy is not None and not self.privacy.left
        waiting = self._taking or resting
        return self.ready is not None and not waiting and phase in ("training", "mixing", "saving")

    # --- what the trainer says ---------------------------------------------------------------------------------------

    async def hear(self, message: link.Message) -> None:
        """Take one message of the trainer. It is not silent while our disk makes it wait."""
        self._trainer.heard()
        self._taking = True
        try:
            await self._take(message)
        finally:
            self._taking = False

    async def _take(self, message: link.Message) -> None:
        match message:
            case link.TrainerConnected(pid):
                self._trainer.pid = pid
            case link.TrainerReady():
                await self._is_ready(message)
            case link.Progress(step=step):  # without a step it says only that the trainer lives
                self.progress = message if step else None
            case link.RoundTrained():
                await self._trained(message)
            case link.PrivacySpent():
                self._privacy_is(message)
            case link.SnapshotInspected():
                await self._inspected(message)
            case link.RoundMixed():
                await self._is_mixed(message)
            case link.Evaluated():
                await self._evaluated(self._history.evaluated(message))
            case link.EvaluatedNow():
                self.evaluating.answer(message)
                await self._evaluated(self._history.evaluated_now(message))
            case link.StateSaved():
                await self._state_saved(message)
            case link.SaveFailed(round, problem):
                await self._save_failed(round, TryAgain("save.failed", problem))
            case link.StateAdopted(_, chosen):
                await self._host.post(events.StateAdopted(chosen))
            case link.TrainerFailed():
                said = from_exit_code(message.exit_code, message.reason, message.message)
                self._host.problems.set("trainer", problem_of(said, critical=True))
                self._trainer.failed(message)
            case _:
                log.warning("The trainer sent a message of the daemon (%s).", type(message).__name__)

    async def lost(self, cause: str) -> None:
        """The trainer is not heard any more: what it had not finished will not come."""
        self._trainer.unheard()
        if not (self._trainer.stopping or self._host.problems.has("trainer")):
            self._host.problems.set("trainer", self._gone(cause))
        self._lines.flush()
        self.ready, self.progress = None, None
        self.evaluating.answer(None)
        self._inspecting.clear()
        self._saving = None
        await self._host.post(events.TrainerLost(cause))

    def _gone(self, cause: str) -> Problem:
        remedy = "Start it again" if self._trainer.external else "It is started again"
        return Problem(
            "trainer.lost",
            f"There is no trainer ({cause.rstrip('.')}).",
            f"{remedy}; the mesh is served meanwhile.",
            critical=True,
        )

    async def _is_ready(self, message: link.TrainerReady) -> None:
        try:
            await self._host.disk(lambda: self._host.store.check_schema(message.schema, message.parts))
        except DecafError as error:
            self._tasks.fail(error)
            return
        self._host.me.schema, self._host.me.base = message.schema, message.base
        self._labels_are(message.label_parts)
        self._host.problems.clear("trainer")
        self.ready = message
        log.info(
            "The trainer is ready: rank %d, %d parameters on %s.", message.rank, message.parameters, message.device
        )
        await self._host.post(events.TrainerStarted(message.schema, message.rank))
        await self._told(message.schema)

    async def _trained(self, message: link.RoundTrained) -> None:
        self._lines.flush()
        self._history.trained(message)
        self._host.me.round = message.round
        if message.steps:
            self._host.me.loss = message.loss
        self._labels_are(message.label_parts)
        file = message.snapshot
        await self._host.post(events.RoundTrained(Snapshot(file.digest, message.round, message.rank, file.size_bytes)))

    def _labels_are(self, parts: tuple[float, ...]) -> None:
        """Those of our own examples. What a script of the user's tells, and cannot be that, is not told."""
        self._host.me.label_parts = parts if are_parts(parts) else ()
        self._introduce()

    def _privacy_is(self, message: link.PrivacySpent) -> None:
        self.privacy = message
        if message.left:
            self._host.problems.clear("privacy")
            return
        self.progress = None  # it was the last
        spent = Problem(
            "privacy.spent",
            f"The privacy budget is spent: epsilon {message.spent:.3g} of {message.epsilon:g} in {message.steps} "
            "steps. This node trains no more and goes on mixing.",
            "Whoever raises privacy.epsilon weakens the promise.",
        )
        self._host.problems.set("privacy", spent)

    async def _inspected(self, message: link.SnapshotInspected) -> None:
        peer = self._next_waiting(message.digest)
        if peer is None:
            return
        self._history.inspected(peer, message.digest, message.distance)
        await self._host.post(
            events.SnapshotInspected(
                peer,
                message.digest,
                message.finite,
                message.distance,
                message.problem,
                norm=message.norm,
                plain_distance=message.plain_distance,
                plain_norm=message.plain_norm,
                harm=message.harm,
            )
        )

    def _next_waiting(self, digest: str) -> str | None:
        """Return whose snapshot was to be inspected first under this digest, and wait for it no more."""
        waiting = self._inspecting.get(digest)
        if not waiting:
            return None
        peer = waiting.popleft()
        if not waiting:
            del self._inspecting[digest]
        return peer

    async def _is_mixed(self, message: link.RoundMixed) -> None:
        self._trainer.round_done()
        row = self._history.mixed(message)
        await self._record(row)
        self._lines.mixed(row)
        self._watched(row)
        await self._host.post(events.RoundMixed(message.round))
        await self._prune()

    async def _evaluated(self, row: RoundReport | None) -> None:
        if row is not None:
            await self._record(row)
            self._lines.evaluated(row)
            self._watched(row)

    async def _state_saved(self, message: link.StateSaved) -> None:
        saving = self._saving
        if saving is None or saving.round != message.round:
            return
        try:
            if self._server.of_another_user:
                message = await self._host.disk(lambda: self._taken_over(message))
            await self._host.disk(
                lambda: self._host.store.commit_round(
                    saving.round,
                    saving.mixes,
                    message.snapshot,
                    message.trainer,
                    Path(message.export),
                    {},
                    saving.covers,
                    saving.unheard,
                )
            )
        except DecafError as error:
            await self._save_failed(saving.round, error)
            return
        self._saving = None
        self._history.saved(saving.round)
        self._host.problems.clear("disk")
        self._host.problems.clear("save")
        await self._host.post(events.RoundSaved(saving.round))

    def _taken_over(self, message: link.StateSaved) -> link.StateSaved:
        return self._handover.take(message, self._host.store.staging(message.round))

    async def _save_failed(self, round: int, error: DecafError) -> None:
        self._saving = None
        said = replace(problem_of(error, "The last round is not saved: ", critical=True), id="save.failed")
        self._host.problems.set("save", said)
        with contextlib.suppress(DecafError):
            await self._host.disk(self._host.store.discard_staging)
        await self._host.post(events.SaveFailed(round, error.message))

    async def _record(self, row: RoundReport) -> None:
        """Keep a row of the history; a full disk costs the row and no more."""
        with contextlib.suppress(TryAgain):
            await self._host.disk(lambda: self._host.store.record_round(row))

    async def _prune(self) -> None:
        keep = self._needed()
        with contextlib.suppress(TryAgain):
            await self._host.disk(lambda: self._host.spool.prune(keep))

    # --- the way to the trainer --------------------------------------------------------------------------------------

    def _say(self, make: Callable[[], link.Message]) -> None:
        async def at_once() -> link.Message:
            return make()

        self._tell(at_once)

    def _tell(
        self,
        make: Callable[[], Awaitable[link.Message]],
        fail: Callable[[DecafError], Awaitable[None]] | None = None,
    ) -> None:
        """Send the trainer what ``make`` gives, after all that was to be sent before."""
        self._tasks.spawn(self._send_in_turn(make, fail))

    async def _send_in_turn(
        self,
        make: Callable[[], Awaitable[link.Message]],
        fail: Callable[[DecafError], Awaitable[None]] | None,
    ) -> None:
        async with self._in_turn:
            try:
                self._server.send(await make())
            except DecafError as error:
                if fail is None:
                    raise
                await fail(error)

    def _file(self, digest: str) -> link.File:
        """Return the snapshot of this digest: in the spool, else the saved one."""
        path = self._host.spool.path(digest)
        if path.exists():
            return link.File(str(path), digest, path.stat().st_size)
        if self._saved is not None and self._saved.digest == digest:
            return self._saved
        raise Bug("spool.missing", f"The snapshot {digest[:12]} is neither in the spool nor saved.")
