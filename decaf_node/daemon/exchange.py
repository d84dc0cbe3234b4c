"""One edge stream from one end: offers, snapshots both ways in chunks, receipts. The machine decides, this acts.

Every frame is checked before it is used; one that does not fit ends the stream with a refusal. Of what
comes one chunk is in memory, for the next is read when it is written; of what is sent, a few.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from decaf_node.daemon.fetch import Fetch
from decaf_node.daemon.logs import fields
from decaf_node.daemon.pace import WINDOW_SECONDS, Progress
from decaf_node.daemon.traffic import Bytes
from decaf_node.daemon.transport import Transport
from decaf_node.daemon.wire import Chunk, Frame, Introduction, Refusal, Want, bad_frame, decode, encode
from decaf_node.errors import BadData, DecafError, TryAgain
from decaf_node.mesh.events import (
    EdgeBroken,
    EdgeRefused,
    Event,
    Offer,
    OfferReceived,
    Receipt,
    Snapshot,
    SnapshotReceived,
    SnapshotRefused,
)
from decaf_node.mesh.unheard import SAID_AT_MOST

log = logging.getLogger(__name__)

DUPLICATE = "mesh.duplicate-stream"
LAST_WORDS_SECONDS = 5.0  # for what is being said, and for the other end to end the stream too
CHUNKS_AT_ONCE = 4  # are read: each call to a thread costs as much as to read a chunk
RECEIPTS = SAID_AT_MOST + 1  # one of this edge, and those of earlier ones said again
Fresh = Callable[[], bool]


class Post(Protocol):
    """Hands an event to the machine; see ``Driver.post``."""

    def __call__(self, event: Event, fresh: Fresh | None = None) -> Coroutine[Any, Any, None]:
        """Queue the event."""


class Surroundings(Protocol):
    """What a stream needs of the node."""

    @property
    def post(self) -> Post:
        """Hands an event to the machine, which forgets it if ``fresh`` says no when its turn comes."""

    async def turn(self, rest: int, wanted: Callable[[], bool]) -> int:
        """Return, once it may leave, how many bytes the next chunk has, at most ``rest``. wanted: see ``Upload``."""

    async def read(self, digest: str, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes of a snapshot in the spool. Raises TryAgain if it is not there any more."""

    @property
    def least_rate(self) -> int:
        """Bytes a second that a snapshot on its way must make."""

    async def fetch(self, peer: str, snapshot: Snapshot) -> Fetch | None:
        """Begin to write a peer's snapshot into the spool, where its earlier try ended; None if it is here already."""

    def introduction(self) -> Introduction:
        """Return how this node introduces itself now."""

    def refused(self, peer: str, reason: str, message: str, by_us: bool) -> None:
        """Say that an edge was refused, with the peer's name."""

    async def take_receipt(self, peer: str, receipt: Receipt) -> None:
        """Keep the peer's receipt and hand it to the machine."""

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run work in the background."""

    def count(self, sent: int = 0, received: int = 0) -> None:
        """Count bytes of snapshots."""


Admit = Callable[["Stream"], tuple[str, str] | None]


@dataclass
class Said:
    """What the other end has said so far on this stream."""

    offer: bool = False
    want: bool = False
    receipts: int = 0


class Stream:
    """An edge stream to ``peer``.

    ``current`` until the machine has dropped it or another took its place; one that the peer opened is so from its
    offer on, unless ``admit`` returns why not. ``at_fault`` if the peer broke the protocol, or was too slow.
    """

    def __init__(
        self,
        peer: str,
        incoming: bool,
        around: Surroundings,
        admit: Admit | None = None,
        window: float = WINDOW_SECONDS,
    ) -> None:
        """window: seconds over which the least rate counts."""
        self.peer = peer
        self.incoming = incoming
        self.current = admit is None
        self.at_fault = False
        self._admit = admit
        self.bytes = Bytes()
        self._around = around
        self._transport: asyncio.Future[Transport] = asyncio.get_running_loop().create_future()
        self._writing = asyncio.Lock()
        self._offered: dict[str, Snapshot] = {}
        self._said = Said()
        self._fetch: Fetch | None = None
        self._reading: asyncio.Task[str] | None = None
        self._sending = False
        self._cut = False
        self._window = window
        self._closed = False

    async def run(self, transport: Transport) -> None:
        """Take what the other end says until the stream ends, one way or another."""
        self._transport.set_result(transport)
        self._reading = asyncio.create_task(self._take_all(transport))
        if self._closed:
            self._reading.cancel()
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({self._reading})
        finally:
            self._reading.cancel()
            watching.cancel()
            self._let_room_go()
        passed = fields(peer=self.peer, sent_bytes=self.bytes.sent, received_bytes=self.bytes.received)
        log.debug("the stream with %s has ended", self.peer, extra=passed)
        if self._cut:
            await self.broken("the connection broke")
        elif not self._reading.cancelled():
            await self.broken(self._reading.result())

    async def _watch(self) -> None:
        """Give the stream up where a snapshot, or the offer that comes first, is too slow."""
        rate = self._around.least_rate
        coming, going = Progress(rate, self._window), Progress(rate, self._window)
        while True:
            await asyncio.sleep(self._window)
            too_slow = coming.look(None if self._fetch is None else self.bytes.received)
            too_slow |= going.look(self.bytes.sent if self._sending else None)
            if too_slow or (self.incoming and not self._said.offer):
                await self._too_slow()
                return

    async def _too_slow(self) -> None:
        problem = "it is too slow (limits.least_rate_bytes)"
        self._around.refused(self.peer, "mesh.too-slow", f"The snapshot or its offer is given up: {problem}.", True)
        if self._fetch is not None:
            await self._around.post(SnapshotRefused(self.peer, self._fetch.snapshot.digest, problem), self._is_current)
        await self.broken(problem)
        self.current, self.at_fault = False, True
        self.cut()

    def _let_room_go(self) -> None:
        if self._fetch is not None:
            self._fetch.release()

    def cut(self) -> None:
        """The connection is gone; whatever is being read will not come."""
        self._cut = True
        if self._reading is not None:
            self._reading.cancel()

    async def broken(self, problem: str) -> None:
        """Tell the machine that the stream has ended, unless it knows."""
        await self._around.post(EdgeBroken(self.peer, problem), self._is_current)

    async def send(self, frame: Introduction | Offer | Receipt) -> None:
        """Send a frame. A stream that has broken swallows it: its reader has told the machine."""
        if isinstance(frame, Offer) and frame.snapshot is not None:
            self._offered[frame.snapshot.digest] = frame.snapshot
        await self._write(frame)

    async def fetch(self, snapshot: Snapshot) -> None:
        """Ask for the snapshot that the other end has offered; the machine hears when it is here."""
        try:
            await self._begin(snapshot, await self._around.fetch(self.peer, snapshot))
        except DecafError as error:  # our disk, or another stream has just taken the same part; not the peer
            await self.broken(error.message)
            await self.close()

    async def _begin(self, snapshot: Snapshot, fetch: Fetch | None) -> None:
        if fetch is None:
            await self._around.post(SnapshotReceived(self.peer, snapshot.digest))
        elif self.current and not self.over:
            self._fetch = fetch
            await self._write(Want(snapshot.digest, fetch.offset))
            if fetch.offset == snapshot.size_bytes:
                await self._finish(fetch)
        else:
            fetch.release()

    async def refuse(self, reason: str, message: str) -> None:
        """Say why not, and end the stream."""
        self.current = False
        await self._write(Refusal(reason, message))
        await self.close()

    async def close(self) -> None:
        """End the stream after what is being said."""
        self.current, self._closed = False, True
        if self._transport.done():
            await asyncio.wait({asyncio.ensure_future(self._end())}, timeout=LAST_WORDS_SECONDS)
        if self._reading is not None:
            self._reading.cancel()

    async def _end(self) -> None:
        async with self._writing:
            await self._transport.result().end()
        if self._reading is not None and not self.incoming:
            await asyncio.wait({self._reading})

    @property
    def over(self) -> bool:
        """It has ended, or was never up."""
        return self._transport.cancelled() or (self._reading is not None and self._reading.done())

    def give_up(self) -> None:
        """Nobody answers: what was to be sent goes nowhere."""
        self._transport.cancel()

    @property
    def _is_coming(self) -> bool:
        """Its offer is awaited."""
        return self._admit is not None and not self._said.offer and not self._closed

    def _is_current(self) -> bool:
        return self.current

    def _is_up(self) -> bool:
        return self.current and not self.over

    async def _take_all(self, transport: Transport) -> str:
        """Return why the stream ended."""
        try:
            while (message := await transport.read()) is not None:
                frame = decode(message)
                if isinstance(frame, Refusal):
                    return await self._refused(frame)
                await self._take(frame)
        except BadData as error:
            self.at_fault = True
            self._around.refused(self.peer, error.reason, error.message, by_us=True)
            await self._write(Refusal(error.reason, error.message))
            return error.message
        except DecafError as error:
            return error.message
        return "it ended the stream"

    async def _refused(self, refusal: Refusal) -> str:
        if refusal.reason != DUPLICATE:  # else its own stream comes, or came
            self._around.refused(self.peer, refusal.reason, refusal.message, by_us=False)
            event = EdgeRefused(self.peer, refusal.reason, refusal.message)
            await self._around.post(event, self._is_current)
        return refusal.message

    async def _take(self, frame: Frame) -> None:
        match frame:
            case Offer() if self._admit is not None and self._is_coming:
                if refusal := self._admit(self):
                    await self._write(Refusal(*refusal))
                    raise TryAgain(*refusal)
                self.current = self._said.offer = True
                await self._around.post(OfferReceived(self.peer, frame, self.incoming), self._is_current)
            case Offer() | Want() | Chunk() if not self.current and not self._is_coming:
                return  # said before the other end knew
            case Offer() if not self._said.offer:
                self._said.offer = True
                await self._around.post(OfferReceived(self.peer, frame, self.incoming), self._is_current)
            case Want(digest, offset) if not self._said.want and digest in self._offered:
                self._said.want = True
                self._around.spawn(self._serve(self._offered[digest], offset))
            case Chunk(offset, data) if self._fetch is not None:
                await self._take_chunk(self._fetch, offset, data)
            case Receipt() if self._said.receipts < RECEIPTS:
                self._said.receipts += 1
                await self._around.take_receipt(self.peer, frame)
            case _:
                raise bad_frame(f"a frame out of turn ({type(frame).__name__.lower()})")

    async def _take_chunk(self, fetch: Fetch, offset: int, data: bytes) -> None:
        if offset != fetch.offset or offset + len(data) > fetch.snapshot.size_bytes:
            raise bad_frame("a chunk that does not follow the one before")
        await fetch.write(offset, data)
        self.bytes = Bytes(self.bytes.sent, self.bytes.received + len(data))
        self._around.count(received=len(data))
        if fetch.offset == fetch.snapshot.size_bytes:
            await self._finish(fetch)

    async def _finish(self, fetch: Fetch) -> None:
        self._fetch = None
        problem = await fetch.finish()
        digest = fetch.snapshot.digest
        if problem:
            await self._around.post(SnapshotRefused(self.peer, digest, problem))
        else:
            await self._around.post(SnapshotReceived(self.peer, digest))

    async def _serve(self, snapshot: Snapshot, offset: int) -> None:
        """Send the snapshot, reading some chunks at once.

        Never cancelled while the stream is up: that would cancel the call with its last words.
        """
        ahead = memoryview(b"")
        try:
            while (rest := snapshot.size_bytes - offset) > 0 and self._is_up():
                self._sending = False  # while it waits for its turn here it is not the other end that is slow
                size = await self._around.turn(rest, self._is_up)
                if not self._is_up():
                    return
                if not ahead:
                    length = min(rest, CHUNKS_AT_ONCE * size)
                    ahead = memoryview(await self._around.read(snapshot.digest, offset, length))
                self._sending = True
                data, ahead = bytes(ahead[:size]), ahead[size:]
                if not self._is_up() or not await self._write(Chunk(offset, data)):
                    return
                offset += len(data)
                self.bytes = Bytes(self.bytes.sent + len(data), self.bytes.received)
                self._around.count(sent=len(data))
        except DecafError:
            await self._write(Refusal("spool.gone", "The snapshot cannot be read here any more."))
        finally:
            self._sending = False

    async def _write(self, frame: Frame) -> bool:
        """Send a frame in turn; tell whether it went."""
        transport = await self._transport
        try:
            async with self._writing:
                await transport.write(encode(frame))
        except TryAgain:
            return False
        return True
