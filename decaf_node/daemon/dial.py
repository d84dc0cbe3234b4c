"""Finding the way to a peer: its addresses, one channel to each in use, hello, and static peers tried for ever."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from decaf_node.daemon.addresses import split, target
from decaf_node.daemon.channels import Channels, Way
from decaf_node.daemon.logs import fields, printable
from decaf_node.daemon.news_wire import news_from_wire, news_to_wire
from decaf_node.daemon.security import Security
from decaf_node.daemon.texts import readable
from decaf_node.daemon.wire import ADDRESS_LIMIT, Introduction, introduction_from_wire, introduction_to_wire
from decaf_node.errors import BadData, NotAllowed, TryAgain
from decaf_node.mesh.rumours import NO_NEWS, News, Standing
from decaf_node.v1 import mesh_pb2

log = logging.getLogger(__name__)

HELLO_SECONDS = 3.0  # a peer that does not answer this small question in time is silent
FIRST_RETRY_SECONDS = 1.0
REFUSALS = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED)
ADDRESSES_A_PEER = 8  # the oldest are forgotten


@dataclass(frozen=True)
class Answer:
    """Who has answered a hello, and what it tells of the mesh.

    clone: where another device has our identity; renew: an inviter's certificate waits for us there
    """

    who: Introduction
    news: News
    clone: str = ""
    renew: bool = False


@dataclass(frozen=True)
class Seen:
    """Who has answered one that only looks. time: of its clock, seconds since 1970; 0 from an older node."""

    who: Introduction
    time: float


Answered = Callable[[str, Answer], Awaitable[None]]
Met = Callable[[str, Way, Answer], Awaitable[None]]
TurnedAway = Callable[[str, str], None]


async def nothing_more(address: str, way: Way, answer: Answer) -> None:
    """Do nothing after a hello."""


def unheeded(address: str, why: str) -> None:
    """Do nothing about a hello that was refused."""


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
    met:     called with the way to who has answered a hello, before it ends
    turned_away: called with the address that has refused our hello, and why
    """

    def __init__(
        self,
        me: Callable[[], Introduction],
        news: Callable[[], News],
        backoff: float,
        peers: int,
        security: Security,
        met: Met = nothing_more,
        turned_away: TurnedAway = unheeded,
    ) -> None:
        self._me = me
        self._news = news
        self._backoff = backoff
        self._limit = peers
        self._contacts: OrderedDict[str, Contact] = OrderedDict()
        self._channels = Channels(security)
        self._met = met
        self._turned_away = turned_away

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
                used = {known.addresses[0] for known in self._contacts.values() if known.addresses}
                await self._channels.forget(used)
                return answer
            problem = f"another node answers at {address}"
        raise TryAgain("peer.silent", problem)

    async def ask(self, address: str, news: News, leaving: bool = False) -> Answer:
        """Say hello to whoever is at ``address``. Raises TryAgain (``peer.silent``) if nobody of our mesh answers."""
        request = mesh_pb2.HelloRequest(leaving=leaving, news=news_to_wire(news))
        getattr(request, "from").CopyFrom(introduction_to_wire(self._me()))
        try:
            async with self._channels.calling(address) as way:
                answer = read_answer(await way.stub.Hello(request, timeout=HELLO_SECONDS), way.node, address)
                if not leaving:
                    await self._met(address, way, answer)
        except grpc.aio.AioRpcError as error:
            self._channels.distrust(address)
            if error.code() in REFUSALS:
                self._turned_away(address, printable(error.details() or ""))
            raise TryAgain("peer.silent", why_silent(address, error)) from None
        except (BadData, NotAllowed) as error:
            self._channels.distrust(address)
            raise TryAgain("peer.silent", f"{address}: {error.message}") from None
        self.learn_from(answer.news)
        return answer

    def best(self, peer: str) -> str | None:
        """Return the address at which the peer is most likely."""
        contact = self._contacts.get(peer)
        return contact.addresses[0] if contact is not None and contact.addresses else None

    @asynccontextmanager
    async def calling(self, peer: str, address: str) -> AsyncIterator[Way]:
        """Give the way to the peer at ``address``. Raises TryAgain if somebody else answers there, or nobody."""
        try:
            async with self._channels.calling(address) as way:
                if way.node not in ("", peer):
                    raise TryAgain("peer.silent", f"another node answers at {address}")
                yield way
        except NotAllowed as error:
            raise TryAgain("peer.silent", f"{address}: {error.message}") from None

    def distrust(self, address: str) -> None:
        """Look anew at who answers at ``address``."""
        self._channels.distrust(address)

    def unlearn(self, peer: str, address: str) -> None:
        """The peer is not to be looked for at ``address``."""
        if (contact := self._contacts.get(peer)) is not None:
            contact.addresses[:] = [known for known in contact.addresses if known != address]

    def forget(self, peer: str) -> None:
        """Forget the way to a peer that is no member any more."""
        self._contacts.pop(peer, None)

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
        await self._channels.close()


def read_answer(reply: mesh_pb2.HelloReply, shown: str, address: str) -> Answer:
    """Return what was answered at ``address``. shown: whose certificate answers there; empty where nobody can know.

    Raises BadData if it is out of bounds, or says that it is of another.
    """
    who = introduction_from_wire(getattr(reply, "from"))
    if shown not in ("", who.node):
        raise BadData("peer.other-id", f"it says that it is {who.node[:8]}, and its certificate is {shown[:8]}'s")
    news = news_from_wire(reply.news, target(address))
    return Answer(who, news, readable(reply.clone[:ADDRESS_LIMIT]), reply.renew)


async def look_at(channels: Channels, address: str, me: Introduction) -> Seen:
    """Ask who is at ``address``, as one who only looks: it is not taken for a sign that this node is here.

    Raises TryAgain ``peer.silent``; NotAllowed ``peer.refuses``, and for a certificate that is not let in here.
    """
    request = mesh_pb2.HelloRequest(looking=True)
    getattr(request, "from").CopyFrom(introduction_to_wire(me))
    try:
        async with channels.calling(address) as way:
            reply = await way.stub.Hello(request, timeout=HELLO_SECONDS)
            return Seen(read_answer(reply, way.node, address).who, reply.time)
    except grpc.aio.AioRpcError as error:
        if error.code() in REFUSALS:
            raise NotAllowed("peer.refuses", printable(error.details() or "")) from None
        raise TryAgain("peer.silent", why_silent(address, error)) from None


def _new(addresses: tuple[str, ...], contact: Contact) -> list[str]:
    return [address for address in addresses if address not in contact.addresses and split(address) is not None]


def why_silent(address: str, error: grpc.aio.AioRpcError) -> str:
    """Say in words why a call to ``address`` failed."""
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{address} does not answer within {HELLO_SECONDS:g} s"
        case code if code in REFUSALS:
            return f"{address} refuses: {printable(error.details() or '')}"
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"something else than decaf-node answers at {address}"
        case _:
            return f"{address} does not answer ({printable(error.details() or error.code().name)})"
