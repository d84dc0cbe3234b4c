"""Finding the way to a peer: its addresses, one channel to each in use, hello, and static peers tried for ever."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from decaf_node.daemon.addresses import split, target
from decaf_node.daemon.logs import fields, printable
from decaf_node.daemon.news_wire import news_from_wire, news_to_wire
from decaf_node.daemon.wire import MESSAGE_LIMIT_BYTES, Introduction, introduction_from_wire, introduction_to_wire
from decaf_node.errors import BadData, TryAgain
from decaf_node.mesh.rumours import NO_NEWS, News, Standing
from decaf_node.v1 import mesh_pb2, mesh_pb2_grpc

log = logging.getLogger(__name__)

HELLO_SECONDS = 3.0  # a peer that does not answer this small question in time is silent
FIRST_RETRY_SECONDS = 1.0
ADDRESSES_A_PEER = 8  # the oldest are forgotten
CHANNELS_AT_MOST = 64  # kept open without a call: the far members that are probed now and then would pile up
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


@dataclass(frozen=True)
class Answer:
    """Who has answered a hello, and what it tells of the mesh."""

    who: Introduction
    news: News


Answered = Callable[[str, Answer], Awaitable[None]]


@dataclass
class Contact:
    """What is known of the way to a peer. addresses: best first."""

    addresses: list[str] = field(default_factory=list)
    name: str = ""


class Dialler:
    """Knows peers by ID and reaches them.

    me:      returns how this node introduces itself now
    news:    returns what it tells a peer of which it knows no more than an address
    backoff: longest wait between two tries of a static peer
    peers:   most peers remembered; those that we have met last are forgotten last
    """

    def __init__(self, me: Callable[[], Introduction], news: Callable[[], News], backoff: float, peers: int) -> None:
        self._me = me
        self._news = news
        self._backoff = backoff
        self._limit = peers
        self._contacts: OrderedDict[str, Contact] = OrderedDict()
        self._channels: OrderedDict[str, grpc.aio.Channel] = OrderedDict()
        self._calls: Counter[str] = Counter()

    def learn(self, peer: str, addresses: tuple[str, ...], name: str = "") -> tuple[str, ...]:
        """Remember that ``peer`` may be at ``addresses``; return all that are known, best first."""
        contact = self._contact(peer)
        self._contacts.move_to_end(peer)
        new = _new(addresses, contact)
        contact.addresses[:] = (new + contact.addresses)[:ADDRESSES_A_PEER]
        contact.name = name or contact.name
        return tuple(contact.addresses)

    def learn_from(self, news: News) -> None:
        """Remember the addresses that a peer tells: behind those that we have found ourselves."""
        for rumour in (*news.rumours, *news.known):
            if rumour.standing is Standing.HERE and rumour.addresses and rumour.peer != self._me().node:
                contact = self._contact(rumour.peer)
                new = _new(rumour.addresses, contact)
                contact.addresses[ADDRESSES_A_PEER - len(new) :] = new
                contact.name = contact.name or rumour.name

    def _contact(self, peer: str) -> Contact:
        """Return what is known of the peer. Someone new comes first, and so goes first where there are too many."""
        if peer not in self._contacts:
            if len(self._contacts) >= self._limit:
                self._contacts.popitem(last=False)  # discovery or a rumour brings it back if it is still there
            self._contacts[peer] = Contact()
            self._contacts.move_to_end(peer, last=False)
        return self._contacts[peer]

    def name(self, peer: str) -> str:
        """Return what people call the peer; empty if unknown."""
        contact = self._contacts.get(peer)
        return "" if contact is None else contact.name

    def met_last(self, count: int) -> list[str]:
        """Return the IDs of so many peers, those that we have met last first."""
        return list(reversed(self._contacts))[:count]

    async def hello(self, peer: str, news: News = NO_NEWS, leaving: bool = False) -> Answer:
        """Ask the peer, at each address that is known, who it is; what answers is preferred from now on.

        Raises TryAgain (``peer.silent``) if it does not answer at any.
        """
        contact = self._contacts.get(peer, Contact())
        problem = "no address of it is known"
        for address in tuple(contact.addresses):
            answer = await self._try(address, news, leaving)
            if isinstance(answer, TryAgain):
                problem = answer.message
                continue
            contact.addresses[:] = [known for known in contact.addresses if known != address]
            if answer.who.node == peer:
                contact.addresses.insert(0, address)
                contact.name = answer.who.name
                if peer in self._contacts:
                    self._contacts.move_to_end(peer)
                await self._forget_channels()
                return answer
            problem = f"another node answers at {address}"
        raise TryAgain("peer.silent", problem)

    async def ask(self, address: str, news: News, leaving: bool = False) -> Answer:
        """Say hello to whoever is at ``address``. Raises TryAgain (``peer.silent``) if nobody of our mesh answers."""
        me = introduction_to_wire(self._me())
        request = mesh_pb2.HelloRequest(leaving=leaving, news=news_to_wire(news), **{"from": me})
        try:
            with self.calling(address) as stub:
                reply = await stub.Hello(request, timeout=HELLO_SECONDS)
            who = introduction_from_wire(getattr(reply, "from"))
            answer = Answer(who, news_from_wire(reply.news, target(address)))
        except grpc.aio.AioRpcError as error:
            raise TryAgain("peer.silent", why_silent(address, error)) from None
        except BadData as error:
            raise TryAgain("peer.silent", f"{address}: {error.message}") from None
        self.learn_from(answer.news)
        return answer

    def best(self, peer: str) -> str | None:
        """Return the address at which the peer is most likely."""
        contact = self._contacts.get(peer)
        return contact.addresses[0] if contact is not None and contact.addresses else None

    @contextmanager
    def calling(self, address: str) -> Iterator[mesh_pb2_grpc.MeshAsyncStub]:
        """Give the service at ``address``, over the one channel kept to it, which stays open meanwhile."""
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(target(address), CHANNEL_OPTIONS)
        self._channels.move_to_end(address)
        self._calls[address] += 1
        try:
            yield mesh_pb2_grpc.MeshStub(self._channels[address])
        finally:
            self._calls[address] -= 1

    async def _forget_channels(self) -> None:
        """Close channels on which there is no call: to addresses that no peer is at any more, and too many others."""
        used = {contact.addresses[0] for contact in self._contacts.values() if contact.addresses}
        idle = [address for address in self._channels if not self._calls[address]]
        spare = [address for address in idle if address not in used]
        for address in (*spare, *(address for address in idle[:-CHANNELS_AT_MOST] if address in used)):
            await self._channels.pop(address).close()

    async def keep_trying(self, address: str, answered: Answered) -> None:
        """Say hello to a static peer for ever, with back-off while it is silent; tell who answers each time."""
        wait, told = FIRST_RETRY_SECONDS, ""
        while True:
            answer = await self._try(address, self._news())
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

    async def _try(self, address: str, news: News, leaving: bool = False) -> Answer | TryAgain:
        try:
            return await self.ask(address, news, leaving)
        except TryAgain as error:
            return error

    async def close(self) -> None:
        """Let all channels go."""
        for address in sorted(self._channels):
            await self._channels.pop(address).close()


def _new(addresses: tuple[str, ...], contact: Contact) -> list[str]:
    return [address for address in addresses if address not in contact.addresses and split(address) is not None]


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
