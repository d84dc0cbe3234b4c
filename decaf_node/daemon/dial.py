"""Finding the way to a peer: its addresses, one channel to each in use, hello, and static peers tried for ever."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from decaf_node.daemon.addresses import split, target
from decaf_node.daemon.logs import fields, printable
from decaf_node.daemon.wire import MESSAGE_LIMIT_BYTES, Introduction, introduction_from_wire, introduction_to_wire
from decaf_node.errors import BadData, TryAgain
from decaf_node.v1 import mesh_pb2, mesh_pb2_grpc

log = logging.getLogger(__name__)

HELLO_SECONDS = 3.0  # a peer that does not answer this small question in time is silent
FIRST_RETRY_SECONDS = 1.0
ADDRESSES_A_PEER = 8  # the oldest are forgotten
WINDOW_BYTES = 1024 * 1024  # under way on a stream: 100 Mbit/s at 80 ms there and back, 1 Gbit/s at 8 ms
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.keepalive_time_ms", 10_000),  # so that a stream whose other end has vanished ends
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.http2.bdp_probe", 0),  # a window that grows by itself would hold many MB of each stream in memory
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.enable_http_proxy", 0),  # neighbours are never behind one
]

Answered = Callable[[str, Introduction], Awaitable[None]]


@dataclass
class Contact:
    """What is known of the way to a peer. addresses: best first."""

    addresses: list[str] = field(default_factory=list)
    name: str = ""


class Dialler:
    """Knows peers by ID and reaches them.

    me:      returns how this node introduces itself now
    backoff: longest wait between two tries of a static peer
    peers:   most peers remembered
    """

    def __init__(self, me: Callable[[], Introduction], backoff: float, peers: int) -> None:
        self._me = me
        self._backoff = backoff
        self._limit = peers
        self._contacts: dict[str, Contact] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._calls: Counter[str] = Counter()

    def learn(self, peer: str, addresses: tuple[str, ...], name: str = "") -> tuple[str, ...]:
        """Remember that ``peer`` may be at ``addresses``; return all that are known, best first."""
        if peer not in self._contacts and len(self._contacts) >= self._limit:
            del self._contacts[next(iter(self._contacts))]  # discovery brings it back if it is still there
        contact = self._contacts.setdefault(peer, Contact())
        new = [address for address in addresses if address not in contact.addresses and split(address) is not None]
        contact.addresses[:] = (new + contact.addresses)[:ADDRESSES_A_PEER]
        contact.name = name or contact.name
        return tuple(contact.addresses)

    def name(self, peer: str) -> str:
        """Return what people call the peer; empty if unknown."""
        contact = self._contacts.get(peer)
        return "" if contact is None else contact.name

    def peers(self) -> list[str]:
        """Return the IDs of all peers that are known."""
        return sorted(self._contacts)

    async def hello(self, peer: str, leaving: bool = False) -> Introduction:
        """Ask the peer, at each address that is known, who it is; what answers is preferred from now on.

        Raises TryAgain (``peer.silent``) if it does not answer at any.
        """
        contact = self._contacts.get(peer, Contact())
        problem = "no address of it is known"
        for address in tuple(contact.addresses):
            answer = await self._try(address, leaving)
            if isinstance(answer, TryAgain):
                problem = answer.message
                continue
            contact.addresses[:] = [known for known in contact.addresses if known != address]
            if answer.node == peer:
                contact.addresses.insert(0, address)
                contact.name = answer.name
                await self._forget_channels()
                return answer
            problem = f"another node answers at {address}"
        raise TryAgain("peer.silent", problem)

    async def ask(self, address: str, leaving: bool = False) -> Introduction:
        """Say hello to whoever is at ``address``. Raises TryAgain (``peer.silent``) if nobody of our mesh answers."""
        request = mesh_pb2.HelloRequest(leaving=leaving, **{"from": introduction_to_wire(self._me())})
        try:
            with self.calling(address) as stub:
                reply = await stub.Hello(request, timeout=HELLO_SECONDS)
            return introduction_from_wire(getattr(reply, "from"))
        except grpc.aio.AioRpcError as error:
            raise TryAgain("peer.silent", why_silent(address, error)) from None
        except BadData as error:
            raise TryAgain("peer.silent", f"{address}: {error.message}") from None

    def best(self, peer: str) -> str | None:
        """Return the address at which the peer is most likely."""
        contact = self._contacts.get(peer)
        return contact.addresses[0] if contact is not None and contact.addresses else None

    @contextmanager
    def calling(self, address: str) -> Iterator[mesh_pb2_grpc.MeshAsyncStub]:
        """Give the service at ``address``, over the one channel kept to it, which stays open meanwhile."""
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(target(address), CHANNEL_OPTIONS)
        self._calls[address] += 1
        try:
            yield mesh_pb2_grpc.MeshStub(self._channels[address])
        finally:
            self._calls[address] -= 1

    async def _forget_channels(self) -> None:
        """Close the channels to addresses that no peer is at any more, and on which there is no call."""
        used = {contact.addresses[0] for contact in self._contacts.values() if contact.addresses}
        for address in sorted(set(self._channels) - used):
            if not self._calls[address]:
                await self._channels.pop(address).close()

    async def keep_trying(self, address: str, answered: Answered) -> None:
        """Say hello to a static peer for ever, with back-off while it is silent; tell who answers each time."""
        wait, told = FIRST_RETRY_SECONDS, ""
        while True:
            answer = await self._try(address)
            if isinstance(answer, TryAgain):
                if answer.message != told:
                    log.info("static peer: %s", answer.message, extra=fields(address=address))
                told = answer.message
                await asyncio.sleep(min(wait, self._backoff))
                wait = min(2 * wait, self._backoff)
            else:
                await answered(address, answer)
                wait, told = FIRST_RETRY_SECONDS, ""
                await asyncio.sleep(self._backoff)

    async def _try(self, address: str, leaving: bool = False) -> Introduction | TryAgain:
        try:
            return await self.ask(address, leaving)
        except TryAgain as error:
            return error

    async def close(self) -> None:
        """Let all channels go."""
        for address in sorted(self._channels):
            await self._channels.pop(address).close()


def why_silent(address: str, error: grpc.aio.AioRpcError) -> str:
    """Say in words why a call to ``address`` failed."""
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{address} does not answer within {HELLO_SECONDS:g} s"
        case grpc.StatusCode.FAILED_PRECONDITION:
            return f"{address} refuses: {printable(error.details() or '')}"
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"something else than decaf-node answers at {address}"
        case _:
            return f"{address} does not answer ({printable(error.details() or error.code().name)})"
