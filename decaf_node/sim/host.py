"""One simulated device: what the daemon does around its ``Node``, by the rules that ``mesh.node`` asks of a host."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Effect, Event, Offer, Receipt, Saved
from decaf_node.mesh.node import Node
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.rumours import News
from decaf_node.sim.disk import Disk
from decaf_node.sim.network import Chunk, Content, Frame, Stream, Want, address
from decaf_node.sim.trainer import Order, Trainer

if TYPE_CHECKING:
    from decaf_node.sim.world import World

EARLY_RECEIPTS = 1024  # as the daemon has it
STOP_WITHIN = 9.0  # seconds, as ``limits.stop``
ROUNDING = 1e-6  # seconds that a tick may come early, by the rounding of a clock that runs at its own rate


class Host:
    """A device with a node. number: which data it has; pace: seconds of training a round; distance: of its link."""

    def __init__(self, world: World, device: str, name: str, number: int, policy: Policy, pace: float) -> None:
        self.device = device
        self.name = name
        self.number = number
        self.policy = policy
        self.pace = pace
        self.distance = 0.001
        self.bandwidth = 1.0
        self.sending = self.receiving = 0.0  # until when its line carries what is on its way
        self.rate = 1.0  # of its monotonic clock
        self.wall = 0.0  # how far its wall clock is off
        self.disk = Disk()
        self.known: set[str] = set()
        self.streams: dict[str, Stream] = {}
        self.schema = world.schema
        self.up = False
        self.frozen = False
        self.life = 0
        self.completed = 0  # rounds mixed, over all its lives
        self.began = 0.0  # when it first started
        self.losses: list[
            float
        ] = []  # when it lost receipts: with disk or power, on a full disk, before its first save
        self.thawed = float("-inf")  # when it last went on after it had hung
        self._world = world
        self._agenda = world.agenda
        self._backlog: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._early: dict[str, Receipt] = {}  # the last of each peer that answered none of ours
        self._tick = float("inf")
        self._clock = 0.0
        self.random = Random(f"{world.seed} {device}")
        self.trainer: Trainer = Trainer(world, self)
        self.node: Node

    # --- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemon from what its disk holds."""
        if self.up:
            return
        self.began = self.began if self.life else self._world.now
        self.life += 1
        self.up, self.frozen = True, False
        self.streams, self._early, self._backlog, self._tick = {}, {}, [], float("inf")
        self.known = set()
        self._world.network.routes[self.name] = self
        self.node = self._world.make_node(self.name, self.policy, Random(self.random.random()), self._saved())
        self._world.checks.started(self)
        self.trainer.load()
        self._world.discovery.announce(self)
        self.post(ev.Tick())

    def stop(self) -> None:
        """Ask the daemon to stop; it does within a few seconds."""
        if self.up and not self.frozen:
            self.post(ev.StopRequested())
            self.later(STOP_WITHIN, self.leave)

    def leave(self) -> None:
        """Say goodbye and be gone."""
        self._world.discovery.goodbye(self)
        for peer in sorted(self.streams):
            self._world.network.close(self, peer)
        self._down()

    def kill(self) -> None:
        """The process dies: what it has written stays."""
        if self.up:
            for stream in self.streams.values():
                self._world.network.sever(stream)
            self._down()

    def lose_power(self) -> None:
        """The device dies: what was not flushed is lost."""
        self.kill()
        self.losses.append(self._world.now)
        self.disk.lose_power(self._world.now - self.random.uniform(0.0, 30.0))

    def freeze(self) -> None:
        """The process hangs."""
        self.frozen = self.up

    def thaw(self) -> None:
        """It goes on with all that came meanwhile."""
        if not self.frozen:
            return
        self.frozen, self.thawed = False, self._world.now
        life, backlog, self._backlog = self.life, self._backlog, []
        for action, arguments in backlog:
            if self.life == life:
                action(*arguments)
        self.post(ev.Tick())

    def _down(self) -> None:
        if self.disk.newest() is None:
            self.losses.append(self._world.now)
        self.up = self.frozen = False
        self.life += 1
        self.streams = {}
        self._backlog = []
        self.trainer.life += 1

    def _saved(self) -> Saved | None:
        saved = self.disk.newest()
        if saved is None:
            return None
        unsaved, promised = self.disk.edges()
        absent = max(0.0, self._world.now + self.wall - saved.wall)
        return Saved(
            saved.round, saved.mixes, self.schema, saved.snapshot, unsaved, absent, promised, self.disk.unheard
        )

    # --- events and effects ----------------------------------------------------------------------------------

    def clock(self) -> float:
        """Return the time by this device's monotonic clock."""
        time = self._agenda.now * self.rate
        if time > self._clock:
            self._clock = time
        return self._clock

    def later(self, delay: float, action: Callable[..., object], *arguments: Any) -> None:
        """Do it after ``delay``, unless this daemon has died by then."""
        agenda = self._agenda
        agenda.at(agenda.now + delay, self._do, self.life, action, arguments)

    def _do(self, life: int, action: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        if life != self.life:
            return
        if self.frozen:
            self._backlog.append((action, arguments))
        else:
            action(*arguments)

    def post(self, event: Event) -> None:
        """Hand an event to the node, and do what it wants."""
        if not self.up:
            return
        if self.frozen:
            self._backlog.append((self.post, (event,)))
            return
        now, node, world = self.clock(), self.node, self._world
        effects, deadline = node.step(event, now), node.deadline()
        world.trace.note(self._agenda.now, self.device, event, effects)
        world.checks.stepped(self, event, effects, now, deadline)
        for effect in effects:
            _PERFORM[type(effect)](self, effect)
        world.checks.performed(self, event, effects)
        if deadline is not None:
            self._wake(deadline)

    def _wake(self, deadline: float) -> None:
        """See to it that a tick comes at the node's deadline."""
        time = deadline / self.rate
        if time < self._tick:
            self._tick = time
            self._agenda.at(time, self._ticked, self.life, time)

    def _ticked(self, life: int, time: float) -> None:
        if life != self.life or time != self._tick:
            return
        self._tick = float("inf")
        if self.frozen or not self.up:
            return
        deadline = self.node.deadline()
        if deadline is None:
            return
        if deadline <= self.clock() + ROUNDING:
            self._clock = max(self._clock, deadline)
            self.post(ev.Tick())
        else:
            self._wake(deadline)

    def _train(self, effect: Order) -> None:
        self.trainer.obey(effect)

    def _stop_training(self, effect: ev.StopTraining) -> None:
        self.later(0.0, self.leave)

    def _save_receipt(self, effect: ev.SaveReceipt) -> None:
        self.later(self.random.uniform(0.0, 0.05), self._write_receipt, effect.peer, effect.receipt)

    def _write_receipt(self, peer: str, receipt: Receipt) -> None:
        if self.disk.full:
            self._world.network.close(self, peer)
            return self.post(ev.EdgeBroken(peer, "no space left on the disk"))
        self.disk.write_ours(peer, receipt, self._early.get(peer), self._world.now)
        return self.post(ev.ReceiptSaved(peer, receipt))

    def _fetch(self, effect: ev.FetchSnapshot) -> None:
        digest = effect.snapshot.digest
        if digest in self.disk.spool:
            return self.later(0.0, self.post, ev.SnapshotReceived(effect.peer, digest))
        return self._world.network.send(self, effect.peer, Want(digest, self.disk.partial.get(digest, 0)))

    def _refuse(self, effect: ev.RefuseEdge) -> None:
        if effect.peer in self.streams:
            self._world.network.send(self, effect.peer, effect)
            self._world.network.close(self, effect.peer)

    def _offer(self, effect: ev.OpenEdge) -> None:
        self._world.network.open(self, effect.peer, effect.offer, effect.again)

    def _answer(self, effect: ev.AnswerEdge) -> None:
        self._world.network.send(self, effect.peer, effect.offer)

    def _send_receipt(self, effect: ev.SendReceipt) -> None:
        self._world.network.send(self, effect.peer, effect.receipt)

    def _close(self, effect: ev.CloseEdge) -> None:
        self._world.network.close(self, effect.peer)

    def _probe(self, effect: ev.ProbePeer) -> None:
        self._world.network.hello(self, effect.peer, effect.news)

    def _warn(self, effect: ev.Warn) -> None:
        self._world.warnings[effect.reason] += 1

    # --- what comes from peers -------------------------------------------------------------------------------

    def introduction(self, news: News) -> ev.HelloReceived:
        """Return what a hello of ours says."""
        return ev.HelloReceived(self.name, self.name, self._spoken_schema, self.trainer.round, self._addresses, news)

    def answer(self, hello: ev.HelloReceived) -> ev.PeerAnswered:
        """Return what we answer to this hello, which our node has taken."""
        news = self.node.news(hello.peer, hello.news)
        return ev.PeerAnswered(self.name, self.name, self._spoken_schema, self.trainer.round, news)

    def hears_answer(self, answer: ev.PeerAnswered) -> None:
        """A hello of ours was answered."""
        self.learn(answer.news, answer.peer)
        self.post(answer)

    def learn(self, news: News, peer: str) -> None:
        """Remember the addresses that somebody has told of."""
        self.known.add(peer)
        for rumours in (news.rumours, news.known):
            if rumours:
                self.known.update([rumour.peer for rumour in rumours])

    @property
    def _spoken_schema(self) -> str:
        return self.schema if self.trainer.up else ""

    @property
    def _addresses(self) -> tuple[str, ...]:
        return (address(self.name),)

    def take_frame(self, stream: Stream, frame: Frame) -> None:
        """A frame came on a stream. A receipt counts whenever it comes, anything else on the current stream only."""
        peer = stream.other(self).name
        if type(frame) is Receipt:
            if self.disk.full:
                self.losses.append(self._world.now)  # it counts here all the same, unless a crash comes before the save
            if not self.disk.write_theirs(peer, frame):
                self._remember(peer, frame)
            return self.post(ev.ReceiptReceived(peer, frame))
        if type(frame) is Offer and stream.acceptor is self and not stream.taken:
            self._world.network.accept(stream)
        if self.streams.get(peer) is not stream:
            return None
        match frame:
            case Offer():
                self.post(ev.OfferReceived(peer, frame, incoming=stream.acceptor is self))
            case Want(digest, offset):
                self._serve(stream, digest, offset)
            case Chunk():
                self._take_chunk(peer, frame)
            case ev.RefuseEdge(_, reason, message):
                del self.streams[peer]
                self.post(ev.EdgeRefused(peer, reason, message))
        return None

    def _remember(self, peer: str, receipt: Receipt) -> None:
        """Ours, which this one answers, may be on its way to disk."""
        self._early.pop(peer, None)
        self._early[peer] = receipt
        if len(self._early) > EARLY_RECEIPTS:
            del self._early[next(iter(self._early))]

    def _serve(self, stream: Stream, digest: str, offset: int) -> None:
        self._world.checks.serves(self, stream, digest)
        content = self.disk.spool.get(digest)
        if content is not None:
            self._world.network.serve(self, stream, self._world.served(self, content), offset)

    def _take_chunk(self, peer: str, chunk: Chunk) -> None:
        content: Content = chunk.content
        digest = content.snapshot.digest
        self.disk.partial[digest] = chunk.end
        if chunk.damaged:
            self.disk.partial[digest] = 0
            self.post(ev.SnapshotRefused(peer, digest, "its bytes do not have the digest that was offered"))
        elif chunk.end == content.snapshot.size_bytes:
            del self.disk.partial[digest]
            if content.schema != self.schema:
                return self.post(ev.SnapshotRefused(peer, digest, "its header names another model or adapter"))
            self.disk.spool[digest] = content
            self.post(ev.SnapshotReceived(peer, digest))
        return None

    def forget_snapshots(self) -> None:
        """Keep only the bytes that the node needs."""
        needed = self.node.needed()
        spool = self.disk.spool
        for digest in [digest for digest in spool if digest not in needed]:
            del spool[digest]
        if len(self.disk.partial) > len(self.streams):
            self.disk.partial.clear()


_PERFORM: dict[type[Effect], Callable[[Host, Any], None]] = {
    ev.StartTraining: Host._train,
    ev.InspectSnapshot: Host._train,
    ev.MixRound: Host._train,
    ev.AdoptState: Host._train,
    ev.SaveRound: Host._train,
    ev.PauseTraining: Host._train,
    ev.ResumeTraining: Host._train,
    ev.StopTraining: Host._stop_training,
    ev.ProbePeer: Host._probe,
    ev.OpenEdge: Host._offer,
    ev.AnswerEdge: Host._answer,
    ev.FetchSnapshot: Host._fetch,
    ev.SaveReceipt: Host._save_receipt,
    ev.SendReceipt: Host._send_receipt,
    ev.RefuseEdge: Host._refuse,
    ev.CloseEdge: Host._close,
    ev.Warn: Host._warn,
}
