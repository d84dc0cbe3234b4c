"""A small world for several nodes: virtual time, and seeded delays, cuts, crashes, slow devices and full disks.

It keeps the rules that ``mesh.node`` asks of a host (one stream a peer, frames in order, receipts always handed on)
and checks after every step what must always hold.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Edge, Effect, Event, Receipt, Saved, Snapshot
from decaf_node.mesh.node import Node
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.rumours import News

SCHEMA = "5c" * 32
Pair = frozenset[str]


@dataclass
class Stream:
    """One stream between two hosts; frames arrive in the order in which they were sent, until it is broken."""

    opener: str
    acceptor: str
    broken: bool = False
    last: dict[str, float] = field(default_factory=dict)
    offered: dict[str, set[str]] = field(default_factory=dict)

    def other(self, me: str) -> str:
        return self.acceptor if me == self.opener else self.opener


@dataclass
class Disk:
    """What survives a crash of the daemon."""

    saved: tuple[int, int, Snapshot] | None = None
    saved_at: float = 0.0
    receipts: dict[tuple[str, str], list[Receipt | None]] = field(default_factory=dict)


class Host:
    """One machine: a daemon with its node, a trainer, a disk."""

    def __init__(self, world: World, name: str, policy: Policy, pace: float) -> None:
        self.world, self.name, self.policy, self.pace = world, name, policy, pace
        self.disk = Disk()
        self.known: set[str] = set()
        self.mixed: list[tuple[float, Edge]] = []
        self.warnings: list[ev.Warn] = []
        self.life = 0
        self.up = False
        self.streams: dict[str, Stream] = {}
        self.full_disk = False
        self.awake = 0

    def start(self) -> None:
        unsaved = tuple(
            Edge(peer, ours.own, ours.theirs, min(ours.weight, theirs.weight))
            for (peer, _), (ours, theirs) in self.disk.receipts.items()
            if ours is not None and theirs is not None
        )
        promised = tuple(
            Edge(peer, ours.own, ours.theirs, ours.weight)
            for (peer, _), (ours, theirs) in self.disk.receipts.items()
            if ours is not None and theirs is None
        )
        saved = None
        if self.disk.saved is not None:
            round, mixes, snapshot = self.disk.saved
            saved = Saved(round, mixes, SCHEMA, snapshot, unsaved, self.world.now - self.disk.saved_at, promised)
        self.node = Node(self.name, self.policy, Random(self.world.random.random()), saved)
        self.streams = {}
        self.early: dict[tuple[str, str], Receipt] = {}
        self.up, self.round, self.trainer, self.paused = True, 0, 0, False
        self.life += 1
        self.later(self.world.random.uniform(0.1, 5.0), self.start_trainer)
        self.step(ev.Tick())

    def crash(self) -> None:
        self.up = False
        self.life += 1
        self.trainer += 1
        for peer, stream in list(self.streams.items()):
            self.world.break_stream(stream, peer)
        self.streams.clear()

    def fill_disk(self, full: bool) -> None:
        self.full_disk = full

    def later(self, delay: float, action: Callable[[], None]) -> None:
        """Do it unless this daemon has crashed by then."""
        life = self.life
        self.world.at(self.world.now + delay, lambda: action() if self.up and self.life == life else None)

    # --- the trainer -----------------------------------------------------------------------------------------

    def start_trainer(self) -> None:
        self.paused = False
        self.step(ev.TrainerStarted(SCHEMA, 8))

    def lose_trainer(self) -> None:
        self.trainer += 1
        self.step(ev.TrainerLost("killed"))
        self.later(self.world.random.uniform(0.5, 5.0), self.start_trainer)

    def by_trainer(self, delay: float, event: Event) -> None:
        trainer = self.trainer
        self.later(delay, lambda: self.step(event) if self.trainer == trainer else None)

    def train(self, round: int) -> None:
        trainer = self.trainer
        delay = self.pace * self.world.random.uniform(0.8, 1.25)

        def trained() -> None:
            if self.trainer != trainer:
                return
            if self.paused:
                return self.later(0.5, trained)
            digest = f"{self.name}/{round}/{self.life}/{self.trainer}"
            self.round_trained = round
            return self.step(ev.RoundTrained(Snapshot(digest, round, 8, 1000)))

        self.later(delay, trained)

    def mix(self, effect: ev.MixRound) -> None:
        keys = [(edge.peer, edge.own) for edge in effect.edges]
        assert len(set(keys)) == len(keys), "an edge twice in one mix"
        needed = self.node.needed()
        for edge in effect.edges:
            assert {edge.own, edge.theirs} <= needed, "bytes of a mix are not kept"
            self.mixed.append((self.world.now, edge))
        self.by_trainer(0.05, ev.RoundMixed(effect.round))
        trainer = self.trainer
        self.later(0.06, lambda: self.train(effect.round + 1) if self.trainer == trainer else None)

    def save(self, effect: ev.SaveRound) -> None:
        trainer = self.trainer

        def saved() -> None:
            if self.full_disk or self.trainer != trainer:
                return self.step(ev.SaveFailed(effect.round, "no space left on the disk"))
            assert self.disk.saved is None or effect.round >= self.disk.saved[0], "a round number went back"
            self.disk.saved = (
                effect.round,
                effect.mixes,
                Snapshot(f"{self.name}/s{effect.round}", effect.round, 8, 1000),
            )
            self.disk.saved_at = self.world.now
            for edge in effect.covers:
                self.disk.receipts.pop((edge.peer, edge.own), None)
            return self.step(ev.RoundSaved(effect.round))

        self.later(self.world.random.uniform(0.01, 0.3), saved)

    # --- what the node wants -----------------------------------------------------------------------------------

    def step(self, event: Event) -> None:
        if not self.up:
            return
        effects = self.node.step(event, self.world.now)
        self.world.check(self)
        for effect in effects:
            self.perform(effect)
        self.wake()

    def wake(self) -> None:
        deadline = self.node.deadline()
        self.awake += 1
        if deadline is None:
            return
        awake, life = self.awake, self.life

        def tick() -> None:
            if self.up and self.life == life and self.awake == awake:
                self.step(ev.Tick())

        self.world.at(deadline, tick)

    def perform(self, effect: Effect) -> None:
        world, name = self.world, self.name
        match effect:
            case ev.StartTraining(round):
                self.train(round)
            case ev.MixRound():
                self.mix(effect)
            case ev.SaveRound():
                self.save(effect)
            case ev.PauseTraining():
                self.paused = True
            case ev.ResumeTraining():
                self.paused = False
            case ev.InspectSnapshot(peer, digest, own):
                assert {digest, own} <= self.node.needed()
                self.by_trainer(world.random.uniform(0.01, 0.3), ev.SnapshotInspected(peer, digest, True, 1.0))
            case ev.AdoptState(candidates):
                assert set(candidates) <= self.node.needed()
                self.by_trainer(0.2, ev.StateAdopted(candidates[world.random.randrange(len(candidates))]))
            case ev.ProbePeer(peer, news):
                world.probe(self, peer, news)
            case ev.SaveReceipt(peer, receipt):
                self.later(world.random.uniform(0.0, 0.1), lambda: self.receipt_saved(peer, receipt))
            case ev.Warn():
                self.warnings.append(effect)
            case ev.OpenEdge(peer, offer):
                world.open(self, peer, offer)
            case ev.AnswerEdge(peer, offer):
                world.send(self, peer, offer)
            case ev.FetchSnapshot(peer, snapshot):
                world.send(self, peer, snapshot)
            case ev.SendReceipt(peer, receipt):
                world.send(self, peer, receipt)
            case ev.RefuseEdge(peer):
                world.send(self, peer, effect)
                world.close(self, peer)
            case ev.CloseEdge(peer):
                world.close(self, peer)
        assert name not in self.streams

    def greeted(self, other: Host, news: News) -> News:
        """Another has said hello. Where it is does not make it known: a one-sided discovery stays one."""
        schema = SCHEMA if other.round else ""
        self.step(ev.HelloReceived(other.name, other.name.upper(), schema, other.round, (), news))
        return self.node.news(other.name, news)

    def receipt_saved(self, peer: str, receipt: Receipt) -> None:
        early = self.early.pop((peer, receipt.own), None)
        self.disk.receipts[peer, receipt.own] = [receipt, early if early and early.own == receipt.theirs else None]
        self.step(ev.ReceiptSaved(peer, receipt))

    def take(self, stream: Stream, frame: object, opened: bool = False) -> None:
        """A frame came."""
        peer = stream.other(self.name)
        current = self.streams.get(peer) is stream
        match frame:
            case Receipt():
                row = self.disk.receipts.get((peer, frame.theirs))
                if row is None:
                    self.early[peer, frame.theirs] = frame
                elif row[0] is not None and row[0].theirs == frame.own:
                    row[1] = frame
                self.step(ev.ReceiptReceived(peer, frame))
            case _ if not current:
                return
            case ev.Offer():
                self.step(ev.OfferReceived(peer, frame, incoming=opened))
            case Snapshot(digest):  # they want it
                assert digest in stream.offered[self.name], "asked for what was not offered"
                assert digest in self.node.needed(), "bytes of an offer are not kept"
                self.later(self.world.random.uniform(0.01, 1.0), lambda: self.world.send(self, peer, digest, stream))
            case str():
                self.step(ev.SnapshotReceived(peer, frame))
            case ev.RefuseEdge(_, reason, message):
                del self.streams[peer]
                self.step(ev.EdgeRefused(peer, reason, message))


class World:
    """Hosts, links between them, and a clock."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.hosts: dict[str, Host] = {}
        self.cut: set[Pair] = set()
        self.steps = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (time, self._count, action))

    def run(self, until: float) -> None:
        steps = 0
        while self._queue and self._queue[0][0] <= until:
            self.now, _, action = heapq.heappop(self._queue)
            action()
            steps += 1
            assert steps < 400_000, "the world does not come to rest"
        self.now = until

    def add(self, name: str, policy: Policy, pace: float, starts_at: float) -> Host:
        host = self.hosts[name] = Host(self, name, policy, pace)
        self.at(starts_at, host.start)
        return host

    # --- what must always hold -------------------------------------------------------------------------------

    def check(self, host: Host) -> None:
        node = host.node
        round, edges, members = node.phase.round, node.edges, node.members
        assert round >= host.round, "a round number went back"
        host.round = round
        assert len(members._members) <= host.policy.peer_limit
        assert edges.sessions.keys() <= members._members.keys()
        assert edges.ledger.owed() <= 1.0 + 1e-12
        assert edges.ledger.size <= 2 * host.policy.unsaved_receipts + len(self.hosts)
        if edges.published is not None:
            assert edges.published.settled <= edges.published.promised <= edges.published.slots
        deadline = node.deadline()
        assert deadline is None or deadline > self.now, "it wants a tick that does nothing"
        self.steps += 1
        if self.steps % 50 == 0:
            node.view(self.now)

    # --- the network -----------------------------------------------------------------------------------------

    def linked(self, one: str, other: str) -> bool:
        return self.hosts[other].up and frozenset((one, other)) not in self.cut

    def discover(self, one: str, other: str) -> None:
        host = self.hosts[one]
        if host.up and self.linked(one, other):
            host.known.add(other)
            host.step(ev.PeerFound(other, (f"{other}:1",)))

    def probe(self, host: Host, peer: str, news: News) -> None:
        def answered() -> None:
            other = self.hosts[peer]
            if not self.linked(host.name, peer) or peer not in host.known:
                return host.step(ev.PeerSilent(peer, "no answer"))
            answer = other.greeted(host, news)
            return host.step(ev.PeerAnswered(peer, peer.upper(), SCHEMA if other.round else "", other.round, answer))

        host.later(self.random.uniform(0.001, 0.1), answered)

    def open(self, host: Host, peer: str, offer: ev.Offer) -> None:
        if (old := host.streams.pop(peer, None)) is not None:
            self.end(old, host.name)
        stream = Stream(host.name, peer)
        host.streams[peer] = stream
        stream.offered[host.name] = {offer.snapshot.digest} if offer.snapshot else set()
        host.later(self.random.uniform(0.001, 0.1), lambda: self.arrive(host, peer, stream, offer))

    def arrive(self, host: Host, peer: str, stream: Stream, offer: ev.Offer) -> None:
        other = self.hosts[peer]
        if host.streams.get(peer) is not stream:
            return
        if not self.linked(host.name, peer) or peer not in host.known:
            del host.streams[peer]
            return host.step(ev.PeerSilent(peer, "cannot be dialled"))
        theirs = other.streams.get(host.name)
        if theirs is not None and theirs.opener == peer and peer < host.name:
            del host.streams[peer]
            return host.step(ev.EdgeRefused(peer, "mesh.duplicate-stream", "The lower ID has opened one itself."))
        if theirs is not None:
            self.end(theirs, peer)
        other.streams[host.name] = stream
        return other.take(stream, offer, opened=True)

    def send(self, host: Host, peer: str, frame: object, stream: Stream | None = None) -> None:
        stream = stream or host.streams.get(peer)
        if stream is None:
            return host.later(0.0, lambda: self.no_stream(host, peer))
        if isinstance(frame, ev.Offer) and frame.snapshot is not None:
            stream.offered.setdefault(host.name, set()).add(frame.snapshot.digest)
        other = self.hosts[peer]
        time = max(stream.last.get(host.name, 0.0), self.now + self.random.uniform(0.001, 0.1))
        stream.last[host.name] = time
        life = other.life

        def arrive() -> None:
            if not stream.broken and other.up and other.life == life:
                other.take(stream, frame)

        return self.at(time, arrive)

    def no_stream(self, host: Host, peer: str) -> None:
        if peer not in host.streams:
            host.step(ev.EdgeBroken(peer, "there is no stream"))

    def close(self, host: Host, peer: str) -> None:
        if (stream := host.streams.pop(peer, None)) is not None:
            self.end(stream, host.name)

    def end(self, stream: Stream, by: str) -> None:
        """The other end sees it when all that was sent has arrived."""
        other = self.hosts[stream.other(by)]
        time = max(stream.last.get(by, 0.0), self.now) + 0.1
        self.at(time, lambda: self.ended(other, stream))

    def ended(self, host: Host, stream: Stream) -> None:
        peer = stream.other(host.name)
        if host.up and host.streams.get(peer) is stream:
            del host.streams[peer]
            host.step(ev.EdgeBroken(peer, "it ended"))

    def break_stream(self, stream: Stream, at: str) -> None:
        """It carries nothing any more; the end ``at`` notices after a while."""
        stream.broken = True
        host = self.hosts[at]
        host.later(self.random.uniform(0.0, 10.0), lambda: self.ended(host, stream))

    def sever(self, one: str, other: str) -> None:
        self.cut.add(frozenset((one, other)))
        for here, there in ((one, other), (other, one)):
            host = self.hosts[here]
            if host.up and (stream := host.streams.get(there)) is not None:
                self.break_stream(stream, here)

    def heal(self, one: str, other: str) -> None:
        self.cut.discard(frozenset((one, other)))
