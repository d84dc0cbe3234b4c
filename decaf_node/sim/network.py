"""The network between simulated devices: ordered streams as TCP gives them, hellos, and who reaches whom.

Loss shows as TCP shows it, as delay; a partition breaks streams after a while.
Duplicates and disorder can only happen to what does not travel on one stream: discoveries, hellos, and receipts that
are said again on another stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Offer, Receipt, RefuseEdge, Snapshot
from decaf_node.mesh.rumours import News

if TYPE_CHECKING:
    from decaf_node.sim.host import Host
    from decaf_node.sim.world import World

RESEND = 0.2  # seconds until a lost packet is sent again, doubled each time
RESENDS = 6  # at most
NOTICED_WITHIN = 10.0  # seconds after which an end notices at most that its stream is broken
HELLO_TIMEOUT, DIAL_TIMEOUT = 3.0, 5.0  # as the daemon has them
SLOW_LINK = 125_000.0  # bytes a second: 1 Mbit/s
FAST_LINK = 12_500_000.0
DAMAGED = 2e-4  # part of the chunks that are damaged on the way or on the sender's disk, where anything goes wrong
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Want:
    """Asks for the bytes of a snapshot from ``offset`` on."""

    digest: str
    offset: int


@dataclass(frozen=True)
class Content:
    """The bytes of a published snapshot, and what the world knows of them.

    maker: the device that has published it, in this life of its.
    """

    snapshot: Snapshot
    maker: str
    life: int
    value: Any
    finite: bool
    schema: str


@dataclass(frozen=True)
class Chunk:
    """A piece of a snapshot. end: the offset after it."""

    content: Content
    end: int
    damaged: bool


Frame = Offer | Want | Chunk | Receipt | RefuseEdge


def address(peer: str) -> str:
    """Return where a node is reached."""
    return f"{peer}:7433"


class Stream:
    """One stream between two devices; frames arrive in the order in which they were sent, until it is broken.

    taken: the acceptor has heard the opener's offer; until then only receipts come on it
    """

    __slots__ = ("acceptor", "broken", "lives", "offered", "opener", "spoken", "taken")

    def __init__(self, opener: Host, acceptor: Host) -> None:
        self.opener = opener
        self.acceptor = acceptor
        self.broken = False
        self.taken = False
        self.lives = {opener.device: opener.life, acceptor.device: acceptor.life}
        self.spoken = {opener.device: 0.0, acceptor.device: 0.0}
        self.offered: dict[str, dict[str, Offer]] = {opener.device: {}, acceptor.device: {}}

    def other(self, one: Host) -> Host:
        return self.acceptor if one is self.opener else self.opener


class Network:
    """Carries what devices say. cut: ordered pairs of devices between which nothing passes."""

    def __init__(self, world: World, random: Random) -> None:
        self.cut: set[tuple[str, str]] = set()
        self.routes: dict[str, Host] = {}
        self.frames = 0
        self.bytes = 0
        self.hellos = 0
        self._world = world
        self._agenda = world.agenda
        self._faults = world.plan.faults
        self._random = random

    def reaches(self, one: Host, other: Host) -> bool:
        """Say whether something sent now by ``one`` arrives at ``other``."""
        return other.up and not (self.cut and (one.device, other.device) in self.cut)

    def linked(self, one: Host, other: Host) -> bool:
        """Say whether they reach each other."""
        return self.reaches(one, other) and self.reaches(other, one)

    def route(self, host: Host, peer: str) -> Host | None:
        """Return the device that ``host`` gets at when it dials the peer."""
        target = self.routes.get(peer)
        return target if target is not None and peer in host.known and self.linked(host, target) else None

    # --- streams ---------------------------------------------------------------------------------------------

    def open(self, host: Host, peer: str, offer: Offer, again: tuple[Receipt, ...]) -> None:
        """Dial the peer, say receipts ``again`` and then our offer; instead of a stream that is up."""
        self.close(host, peer)
        target = self.route(host, peer)
        stream = Stream(host, target or host)
        host.streams[peer] = stream
        if target is None:
            return host.later(self._random.uniform(0.05, DIAL_TIMEOUT), self._unreached, host, peer, stream)
        there_and_back = self._delay(host, target, 200) + self._delay(target, host, 200)
        return host.later(there_and_back, self._connected, stream, peer, (*again, offer))

    def send(self, host: Host, peer: str, frame: Frame) -> None:
        """Say it on the stream to the peer."""
        stream = host.streams.get(peer)
        if stream is None:
            return host.later(0.0, self._no_stream, host, peer)
        return self.speak(stream, host, frame, 500)

    def speak(self, stream: Stream, host: Host, frame: Frame, size_bytes: int) -> None:
        """Carry a frame over this stream, and cut it there if the dice say so."""
        other, agenda, random = stream.other(host), self._agenda, self._random
        if isinstance(frame, Offer):
            self._note_offer(stream, host, frame)
        self.frames += 1
        self.bytes += size_bytes
        if not self.reaches(host, other):
            return self.sever(stream)
        time = max(stream.spoken[host.device], self._carried(host, other, size_bytes) + self._late())
        stream.spoken[host.device] = time
        agenda.at(time, self._deliver, stream, other, frame)
        cuts = self._faults.cuts
        if cuts and random.random() < cuts:
            agenda.at(time if random.random() < 0.5 else agenda.now, self.sever, stream)
        return None

    def close(self, host: Host, peer: str) -> None:
        """End the stream after what was said; the other end sees it then."""
        if (stream := host.streams.pop(peer, None)) is not None:
            other = stream.other(host)
            time = max(stream.spoken[host.device], self._world.now) + self._delay(host, other, 0)
            self._world.agenda.at(time, self._ended, stream, other)

    def sever(self, stream: Stream) -> None:
        """The stream carries nothing any more; each end notices in its own time."""
        if stream.broken:
            return
        stream.broken = True
        for end in (stream.opener, stream.acceptor):
            self._world.agenda.at(self._world.now + self._random.uniform(0.0, NOTICED_WITHIN), self._ended, stream, end)

    def partition(self, one: Host, other: Host, both_ways: bool) -> None:
        """Nothing passes from ``one`` to ``other`` (and back) any more."""
        self.cut.add((one.device, other.device))
        if both_ways:
            self.cut.add((other.device, one.device))
        for host, peer in ((one, other), (other, one)):
            stream = host.streams.get(peer.name)
            if stream is not None and stream.other(host) is peer:
                self.sever(stream)

    def heal(self, one: Host, other: Host) -> None:
        """Both directions pass again."""
        self.cut -= {(one.device, other.device), (other.device, one.device)}

    def calm(self) -> None:
        """Everything passes again, and nothing is lost, late or cut any more."""
        self.cut.clear()
        self._faults = replace(self._faults, loss=0.0, jitter=0.0, duplicates=0.0, cuts=0.0, strikes=0.0)

    def forget(self, host: Host) -> None:
        """The device is gone for good."""
        self.cut = {pair for pair in self.cut if host.device not in pair}

    # --- hellos ----------------------------------------------------------------------------------------------

    def hello(self, host: Host, peer: str, news: News) -> None:
        """Probe the peer, and tell it the news; an answer or silence comes."""
        self.hellos += 1
        target = self.route(host, peer)
        lost = self._faults.loss and self._random.random() < self._faults.loss**2  # gRPC tries again
        if target is None or lost:
            return host.later(self._random.uniform(0.05, HELLO_TIMEOUT), host.post, ev.PeerSilent(peer, "no answer"))
        time = self._world.now + self._delay(host, target, 200)
        self._world.agenda.at(time, self._asked, host, host.life, target, host.introduction(news))
        return None

    def _asked(self, host: Host, life: int, target: Host, hello: ev.HelloReceived) -> None:
        if host.life != life or not target.up:
            return
        if target.frozen:
            return host.later(HELLO_TIMEOUT, host.post, ev.PeerSilent(target.name, "no answer in time"))
        target.learn(hello.news, hello.peer)
        target.post(hello)
        if not target.up:
            return
        answer = target.answer(hello)
        host.later(self._delay(target, host, 200), host.hears_answer, answer)
        if self._again():
            host.later(self._random.uniform(0.0, 2.0), host.hears_answer, answer)
        return None

    def discover(self, host: Host, peer: str) -> None:
        """Discovery tells ``host`` of the peer, whether it is still there or not."""
        host.known.add(peer)
        host.post(ev.PeerFound(peer, (address(peer),)))
        if self._again():
            host.later(self._random.uniform(0.0, 5.0), host.post, ev.PeerFound(peer, (address(peer),)))

    # --- below -----------------------------------------------------------------------------------------------

    def _delay(self, one: Host, other: Host, size_bytes: int) -> float:
        """Return how long what does not wait for its turn is on its way."""
        return one.distance + other.distance + size_bytes / min(one.bandwidth, other.bandwidth) + self._late()

    def _carried(self, one: Host, other: Host, size_bytes: int) -> float:
        """Return when the lines of both ends have carried it: all streams of a device share its line."""
        sent = max(self._agenda.now, one.sending) + size_bytes / one.bandwidth
        come = max(sent + one.distance + other.distance, other.receiving + size_bytes / other.bandwidth)
        one.sending, other.receiving = sent, come
        return come

    def _late(self) -> float:
        """Return how much later something comes than it should."""
        random, faults = self._random, self._faults
        delay = faults.jitter * random.random() ** 4 if faults.jitter else 0.0  # mostly small
        if faults.loss:
            resend = RESEND
            while random.random() < faults.loss and resend < RESEND * 2**RESENDS:
                delay += resend
                resend *= 2
        return delay

    def _again(self) -> bool:
        return self._faults.duplicates > 0 and self._random.random() < self._faults.duplicates

    def _note_offer(self, stream: Stream, host: Host, offer: Offer) -> None:
        if offer.snapshot is not None:
            stream.offered[host.device][offer.snapshot.digest] = offer
            self._world.checks.offered(offer)

    def _connected(self, stream: Stream, peer: str, words: tuple[Frame, ...]) -> None:
        """The device that was dialled has answered, or not."""
        host, target = stream.opener, stream.acceptor
        if host.streams.get(peer) is not stream:
            return
        if target.frozen:
            return host.later(DIAL_TIMEOUT, self._unreached, host, peer, stream)
        if not self.linked(host, target) or target.life != stream.lives[target.device]:
            return self._unreached(host, peer, stream)
        for frame in words:
            self.speak(stream, host, frame, 500)

    def accept(self, stream: Stream) -> None:
        """The opener's offer has come to the other end. Of two streams the one that the lower ID opened stays."""
        host, target = stream.opener, stream.acceptor
        theirs = target.streams.get(host.name)
        stream.taken = True
        if theirs is not None and theirs.opener is target and target.name < host.name:
            stream.broken = True
            return host.later(self._delay(target, host, 200), self._ended, stream, host)
        if theirs is not None:
            self.close(target, host.name)
        target.known.add(host.name)
        target.streams[host.name] = stream
        return None

    def _deliver(self, stream: Stream, host: Host, frame: Frame) -> None:
        if stream.broken or not host.up or host.life != stream.lives[host.device]:
            return
        if host.frozen:
            return host.later(0.0, self._deliver, stream, host, frame)
        host.take_frame(stream, frame)
        if isinstance(frame, Receipt) and self._again():
            host.later(self._random.uniform(0.0, 5.0), host.take_frame, stream, frame)
        return None

    def serve(self, host: Host, stream: Stream, content: Content, offset: int) -> None:
        """Send the bytes of a snapshot, one chunk when the one before has left."""
        if offset == content.snapshot.size_bytes or stream.broken:
            return
        end = min(content.snapshot.size_bytes, offset + CHUNK_BYTES)
        damaged = self._faults.strikes > 0 and self._random.random() < DAMAGED
        self.speak(stream, host, Chunk(content, end, damaged), end - offset)
        if end < content.snapshot.size_bytes:
            host.later(host.sending - self._agenda.now, self.serve, host, stream, content, end)

    def _ended(self, stream: Stream, host: Host) -> None:
        peer = stream.other(host).name
        if host.streams.get(peer) is stream and host.life == stream.lives[host.device]:
            if host.frozen:
                return host.later(0.0, self._ended, stream, host)
            del host.streams[peer]
            host.post(ev.EdgeBroken(peer, "the stream has ended"))
        return None

    def _unreached(self, host: Host, peer: str, stream: Stream) -> None:
        if host.streams.get(peer) is stream:
            stream.broken = True
            del host.streams[peer]
            host.post(ev.PeerSilent(peer, "cannot be dialled"))

    def _no_stream(self, host: Host, peer: str) -> None:
        if peer not in host.streams:
            host.post(ev.EdgeBroken(peer, "there is no stream to it"))
