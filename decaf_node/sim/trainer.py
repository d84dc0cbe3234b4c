"""The trainer process of a simulated device: local steps, publishing, inspecting, mixing, saving, and how it dies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Edge, Snapshot
from decaf_node.sim.disk import SavedRound
from decaf_node.sim.network import Content
from decaf_node.sim.pace import LONGEST, SHORTEST
from decaf_node.sim.problem import Term

if TYPE_CHECKING:
    from decaf_node.sim.host import Host
    from decaf_node.sim.world import World

RANK = 8

Order = (
    ev.StartTraining
    | ev.InspectSnapshot
    | ev.MixRound
    | ev.AdoptState
    | ev.SaveRound
    | ev.PauseTraining
    | ev.ResumeTraining
)


class Trainer:
    """value: what is trained; applied: the edges that it holds, by own and their digest. bad: what will strike it."""

    def __init__(self, world: World, host: Host) -> None:
        self.life = 0
        self.up = False
        self.round = 0
        self.value: Any = None
        self.applied: dict[tuple[str, str], float] = {}
        self.bad: set[str] = set()
        self._paused = False
        self._held: int | None = None  # the round that a pause keeps from being published
        self._ready_at = 0.0
        self._busy_until = 0.0
        self._world = world
        self._host = host

    # --- life ------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Start the process; it has loaded its model after a while."""
        self.life += 1
        self.up = False
        self._busy_until = 0.0
        self._world.checks.rolled_back(self._host)
        self.value, self.applied = None, {}
        self._paused, self._held = False, None
        self._later(self._host.random.uniform(0.1, 5.0), self._loaded)

    def _loaded(self) -> None:
        self.up = True
        self._host.post(ev.TrainerStarted(self._host.schema, RANK))

    def lose(self, cause: str) -> None:
        """The process dies, and the daemon starts another."""
        if self._host.up:
            self.life += 1
            self.up = False
            self._host.post(ev.TrainerLost(cause))
            self.load()

    def _start(self, effect: ev.StartTraining) -> None:
        """Begin the local steps of a round, from the saved state or afresh."""
        saved = self._host.disk.newest() if effect.resume else None
        if saved is None:
            self.value, self.applied = self._world.problem.fresh(self._host.number), {}
        else:
            self.value, self.applied = saved.value, dict(saved.applied)
        self._ready_at = self._world.now + self._length()
        self._begin(effect.round)

    def _resume(self) -> None:
        self._paused = False
        if self._held is not None:
            held, self._held = self._held, None
            self._later(0.1, self._publish, held)

    def obey(self, order: Order) -> None:
        """Do what the node wants."""
        match order:
            case ev.StartTraining():
                self._start(order)
            case ev.InspectSnapshot():
                self._later(self._host.random.uniform(0.01, 0.2), self._inspected, order)
            case ev.MixRound():
                self._world.checks.mixes(self._host, order)
                self._after_the_last(self._host.random.uniform(0.02, 0.2), self._mixed, order)
            case ev.AdoptState():
                self._after_the_last(self._host.random.uniform(0.1, 0.5), self._adopted, order)
            case ev.SaveRound():
                self._host.later(self._host.random.uniform(0.01, 0.2), self._write, order, self.life)
            case ev.PauseTraining():
                self._paused = True
            case ev.ResumeTraining():
                self._resume()

    # --- work ------------------------------------------------------------------------------------------------

    def _length(self) -> float:
        return self._host.pace * self._host.random.uniform(SHORTEST, LONGEST)

    def _begin(self, round: int) -> None:
        """Train until ``_ready_at``; with overlap that began when the last snapshot was published."""
        self.round = round
        now = self._world.now
        if not self._host.policy.overlap:
            self._ready_at = now + self._length()
        self._later(max(0.01, self._ready_at - now), self._publish, round)

    def _publish(self, round: int) -> None:
        host, world = self._host, self._world
        if self._paused:
            self._held = round
            return
        self._ready_at = world.now + self._length()
        self.value = world.problem.train(self.value, host.number, host.random)
        finite = "not-finite" not in self.bad
        self.bad.discard("not-finite")
        digest = f"{host.device}.{host.life}.{self.life}.{round}"
        snapshot = Snapshot(digest, round, RANK, world.problem.snapshot_bytes)
        content = Content(snapshot, host.device, host.life, self.value, finite, host.schema)
        host.disk.spool[digest] = content
        world.checks.published(host, snapshot.digest)
        host.post(ev.RoundTrained(snapshot))
        host.forget_snapshots()

    def _inspected(self, effect: ev.InspectSnapshot) -> None:
        theirs, own = self._host.disk.spool.get(effect.digest), self._host.disk.spool.get(effect.own)
        if theirs is None or own is None:
            return self._host.post(ev.SnapshotInspected(effect.peer, effect.digest, True, 0.0, "it is not here"))
        problem = self._world.problem
        distance, norm = problem.distance(own.value, theirs.value), problem.norm(own.value)
        harm = 0.0
        if self._host.policy.robust == "score" and theirs.finite:
            harm = problem.harm(own.value, theirs.value, self._host.number)
        seen = ev.SnapshotInspected(effect.peer, effect.digest, theirs.finite, distance, norm=norm, harm=harm)
        return self._host.post(seen)

    def _mixed(self, effect: ev.MixRound) -> None:
        if "out-of-memory" in self.bad and effect.edges:
            self.bad.discard("out-of-memory")
            return self.lose("out of memory")
        before, terms = self.value, [self._term(edge) for edge in effect.edges]
        mixed = self._world.problem.mix(before, terms)
        self._world.checks.mixed(self._host, effect, before, terms, mixed)
        self.value = mixed.value
        for edge in effect.edges:
            self.applied[edge.own, edge.theirs] = edge.weight
        self._host.completed += 1
        self._host.post(ev.RoundMixed(effect.round))
        return self._later(0.01, self._begin, effect.round + 1)

    def _term(self, edge: Edge) -> Term:
        spool = self._host.disk.spool
        return edge.weight, spool[edge.own].value, spool[edge.theirs].value

    def _adopted(self, effect: ev.AdoptState) -> None:
        spool = self._host.disk.spool
        base = next((saved.value for saved in self._host.disk.rounds if saved.snapshot.digest == effect.base), None)
        candidates = [spool[digest].value for digest in effect.candidates]
        chosen, self.value = self._world.problem.adopt(self.value, candidates, base)
        self._world.adoptions += 1
        self._host.post(ev.StateAdopted(effect.candidates[chosen]))

    def _write(self, effect: ev.SaveRound, life: int) -> None:
        host = self._host
        if self.life != life or self.value is None:
            return host.post(ev.SaveFailed(effect.round, "the trainer is gone"))
        snapshot = Snapshot(f"{host.device}.{host.life}.{life}.s{effect.round}", effect.round, RANK, 1000)
        wall = self._world.now + host.wall
        saved = SavedRound(effect.round, effect.mixes, snapshot, wall, self.value, dict(self.applied))
        return self._world.commit(host, saved, effect)

    def _after_the_last(self, takes: float, action: Callable[..., object], order: Order) -> None:
        """Do what changes the state one after the other, in the order in which it was wanted."""
        self._busy_until = max(self._busy_until, self._world.now) + takes
        self._later(self._busy_until - self._world.now, action, order)

    def _later(self, delay: float, action: Callable[..., object], *arguments: Any) -> None:
        """Do it unless this process has died by then."""
        self._host.later(delay, self._do, self.life, action, arguments)

    def _do(self, life: int, action: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        if life == self.life:
            action(*arguments)
