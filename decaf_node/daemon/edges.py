"""The edge streams of this node: at most one to a peer. Opens, takes and ends them as the machine says."""

from __future__ import annotations

import asyncio

import grpc

from decaf_node.daemon.dial import Dialler, why_silent
from decaf_node.daemon.exchange import DUPLICATE, Stream, Surroundings
from decaf_node.daemon.pace import WINDOW_SECONDS, BackOff
from decaf_node.daemon.tasks import Tasks
from decaf_node.daemon.transport import Call, ClientTransport, Transport
from decaf_node.errors import TryAgain
from decaf_node.mesh.events import EdgeBroken, Offer, PeerSilent, Receipt, Snapshot

LEFT_ALONE = "it has broken the protocol, or was too slow, and is left alone for a while"
DIAL_SECONDS = 5.0  # for a connection and the other end's first sign


class Edges:
    """Holds the streams of the node ``me``; at most ``limit`` at a time. window: see ``Stream``."""

    def __init__(
        self,
        me: str,
        dialler: Dialler,
        around: Surroundings,
        tasks: Tasks,
        limit: int,
        window: float = WINDOW_SECONDS,
    ) -> None:
        self._me = me
        self._dialler = dialler
        self._around = around
        self._tasks = tasks
        self._limit = limit
        self._window = window
        self._backoff = BackOff()
        self._streams: dict[str, Stream] = {}
        self._coming: dict[str, Stream] = {}  # opened by peers that have not said their offer yet

    def open(self, peer: str, offer: Offer, again: tuple[Receipt, ...]) -> None:
        """Open a stream to the peer, instead of one that is up; say receipts ``again``, then send the offer."""
        if self._backoff.refuses(peer):
            self._tasks.spawn(self._around.post(EdgeBroken(peer, LEFT_ALONE)))
            return
        stream = self._replace(Stream(peer, False, self._around, window=self._window))
        self._tasks.spawn(self._dial(stream, offer, again))

    def answer(self, peer: str, offer: Offer) -> None:
        """Send our offer on the stream that the peer opened."""
        if stream := self._stream(peer):
            self._tasks.spawn(stream.send(offer))

    def fetch(self, peer: str, snapshot: Snapshot) -> None:
        """Ask for the snapshot that the peer has offered."""
        if stream := self._stream(peer):
            self._tasks.spawn(stream.fetch(snapshot))

    def send_receipt(self, peer: str, receipt: Receipt) -> None:
        """Send our receipt."""
        if stream := self._stream(peer):
            self._tasks.spawn(stream.send(receipt))

    def refuse(self, peer: str, reason: str, message: str) -> None:
        """Tell the peer why not, and end its stream."""
        if stream := self._streams.pop(peer, None):
            self._tasks.spawn(stream.refuse(reason, message))

    def close(self, peer: str) -> None:
        """End the stream to the peer, if one is up."""
        if stream := self._streams.pop(peer, None):
            self._tasks.spawn(stream.close())

    async def close_all(self) -> None:
        """End every stream, after what is being said."""
        streams = [*self._streams.values(), *self._coming.values()]
        self._streams, self._coming = {}, {}
        if streams:
            await asyncio.wait([self._tasks.spawn(stream.close()) for stream in streams])

    def refusal(self, peer: str) -> tuple[str, str] | None:
        """Return why a stream that the peer opens now cannot be taken; None if it can."""
        if self._backoff.refuses(peer):
            return "mesh.backing-off", "This node was sent what is no part of the protocol, or too slowly; try later."
        stream = self._streams.get(peer)
        if stream is None:
            if sum(not stream.over for stream in self._streams.values()) >= self._limit:
                return "mesh.too-many-streams", "There are too many edges at this node already; try again later."
            return None
        if not stream.incoming and not stream.over and self._me < peer:
            return DUPLICATE, "The node with the lower ID has opened a stream for this edge itself."
        return None

    async def take(self, peer: str, transport: Transport) -> None:
        """Take a stream that the peer has opened and ``refusal`` lets pass; returns when it has ended.

        When its offer comes it takes the place of the one that is up: what the machine says until then is for that one.
        """
        stream = Stream(peer, True, self._around, self._admit, self._window)
        if before := self._coming.get(peer):
            self._tasks.spawn(before.close())
        self._coming[peer] = stream
        running = self._tasks.spawn(stream.run(transport))
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:  # so gRPC tells the handler that the call is over
            stream.cut()
            raise
        finally:
            if self._coming.get(peer) is stream:
                del self._coming[peer]
            self._judge(stream)

    def blame(self, peer: str) -> None:
        """The peer has broken the protocol: no streams with it for a while."""
        self._backoff.blame(peer)

    def _judge(self, stream: Stream) -> None:
        if stream.at_fault:
            self.blame(stream.peer)

    def _admit(self, stream: Stream) -> tuple[str, str] | None:
        """The stream's offer came: take it, or return why it cannot be taken any more."""
        if (refusal := self.refusal(stream.peer)) is None:
            self._coming.pop(stream.peer, None)
            self._replace(stream)
        return refusal

    async def _dial(self, stream: Stream, offer: Offer, again: tuple[Receipt, ...]) -> None:
        address = self._dialler.best(stream.peer)
        if address is None:
            await self._unreached(stream, "no address of it is known")
            return
        try:
            async with self._dialler.calling(stream.peer, address) as way:
                await self._run(stream, address, way.stub.Exchange(), offer, again)
        except TryAgain as error:
            await self._unreached(stream, error.message)

    async def _run(self, stream: Stream, address: str, call: Call, offer: Offer, again: tuple[Receipt, ...]) -> None:
        try:
            await asyncio.wait_for(call.wait_for_connection(), DIAL_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._dialler.distrust(address)
            await self._unreached(stream, why_silent(address, error))
        except asyncio.TimeoutError:
            self._dialler.distrust(address)
            await self._unreached(stream, f"{address} does not answer within {DIAL_SECONDS:g} s")
        else:
            self._tasks.spawn(self._first_words(stream, offer, again))
            await stream.run(ClientTransport(call))
            self._judge(stream)
        finally:
            call.cancel()

    async def _first_words(self, stream: Stream, offer: Offer, again: tuple[Receipt, ...]) -> None:
        await stream.send(self._around.introduction())
        for receipt in again:
            await stream.send(receipt)
        await stream.send(offer)

    async def _unreached(self, stream: Stream, problem: str) -> None:
        stream.give_up()
        await self._around.post(PeerSilent(stream.peer, problem), lambda: stream.current)

    def _replace(self, stream: Stream) -> Stream:
        old = self._streams.get(stream.peer)
        self._streams[stream.peer] = stream
        if old is not None:
            old.current = False
            self._tasks.spawn(old.close())
        return stream

    def _stream(self, peer: str) -> Stream | None:
        stream = self._streams.get(peer)
        if stream is None:
            gone = EdgeBroken(peer, "there is no stream to it")
            self._tasks.spawn(self._around.post(gone, lambda: peer not in self._streams))
        return stream
