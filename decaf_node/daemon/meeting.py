"""Where peers come from: mDNS, static addresses, and whoever speaks to us; all of it becomes events."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from decaf_node.daemon.addresses import from_source, split
from decaf_node.daemon.dial import Answer, Dialler
from decaf_node.daemon.exchange import Post
from decaf_node.daemon.host import Me
from decaf_node.daemon.logs import fields
from decaf_node.daemon.said import Said
from decaf_node.daemon.tasks import Tasks
from decaf_node.daemon.wire import Introduction
from decaf_node.errors import BadSettings
from decaf_node.mesh.events import HelloReceived, PeerAnswered, PeerFound, PeerLeft
from decaf_node.mesh.rumours import NO_NEWS, News

log = logging.getLogger(__name__)


Greet = Callable[[HelloReceived], Awaitable[News]]


class Meeting:
    """Tells the dialler and the machine of the peers that are met.

    greet: hands a hello to the machine, and returns what to answer
    """

    def __init__(self, me: Me, dialler: Dialler, post: Post, greet: Greet, tasks: Tasks, said: Said) -> None:
        self._me = me
        self._greet = greet
        self._dialler = dialler
        self._post = post
        self._tasks = tasks
        self._said = said
        self._dialled: set[str] = set()

    def dial(self, addresses: tuple[str, ...]) -> None:
        """Try these static peers for ever; those that are tried already, no more often."""
        for address in sorted({*addresses} - self._dialled):
            self._dialled.add(address)
            self._tasks.spawn(self._dialler.keep_trying(address, self._answered))

    def found(self, peer: str, addresses: tuple[str, ...]) -> None:
        """Discovery knows the peer under these addresses."""
        if peer != self._me.node:
            self._tasks.spawn(self._known(peer, addresses, ""))

    def left(self, peer: str) -> None:
        """Discovery has heard the peer's goodbye."""
        self._tasks.spawn(self._post(PeerLeft(peer)))

    async def heard(self, who: Introduction, source: str) -> None:
        """The peer has opened a stream to us, from ``source``."""
        self._said.heard(who)
        address = from_source(who.address, source)
        await self._known(who.node, () if address is None else (address,), who.name)

    async def greeted(self, who: Introduction, source: str, news: News, leaving: bool) -> News:
        """The peer has said hello, from ``source``, with news, or goodbye; return what to answer."""
        if leaving:
            await self._post(PeerLeft(who.node))
            return NO_NEWS
        self._said.heard(who)
        address = from_source(who.address, source)
        known = self._dialler.learn(who.node, () if address is None else (address,), who.name)
        self._dialler.learn_from(news)
        return await self._greet(HelloReceived(who.node, who.name, who.schema, who.round, known, news))

    def passed_over(self, who: Introduction, source: str) -> None:
        """Another device with the identity of who has spoken is mixed instead: this one is not to be dialled."""
        address = from_source(who.address, source)
        if address is not None:
            self._dialler.unlearn(who.node, address)

    async def _answered(self, address: str, answer: Answer) -> None:
        """A static peer has answered."""
        who = answer.who
        if who.node == self._me.node:
            log.debug("%s in mesh.peers is this node itself", address, extra=fields(address=address))
            return
        await self._known(who.node, (address,), who.name)
        await self._post(PeerAnswered(who.node, who.name, who.schema, who.round, answer.news))

    async def _known(self, peer: str, addresses: tuple[str, ...], name: str) -> None:
        known = self._dialler.learn(peer, addresses, name)
        if known:
            await self._post(PeerFound(peer, known))


def check_peers(addresses: tuple[str, ...]) -> None:
    """Raise BadSettings ``settings.bad-peer`` unless each is an address ``host:port``."""
    for address in addresses:
        if split(address) is None:
            raise BadSettings(
                "settings.bad-peer", f"{address!r} in mesh.peers is not an address; write it as host:port."
            )
