"""Where peers come from: mDNS, static addresses, and whoever speaks to us; all of it becomes events."""

from __future__ import annotations

import logging

from decaf_node.daemon.addresses import from_source, split
from decaf_node.daemon.dial import Dialler
from decaf_node.daemon.exchange import Post
from decaf_node.daemon.host import Me
from decaf_node.daemon.logs import fields
from decaf_node.daemon.tasks import Tasks
from decaf_node.daemon.wire import Introduction
from decaf_node.errors import BadSettings
from decaf_node.mesh.events import PeerAnswered, PeerFound, PeerLeft

log = logging.getLogger(__name__)


class Meeting:
    """Tells the dialler and the machine of the peers that are met."""

    def __init__(self, me: Me, dialler: Dialler, post: Post, tasks: Tasks) -> None:
        self._me = me
        self._dialler = dialler
        self._post = post
        self._tasks = tasks

    def dial(self, addresses: tuple[str, ...]) -> None:
        """Try these static peers for ever."""
        for address in addresses:
            self._tasks.spawn(self._dialler.keep_trying(address, self._answered))

    def found(self, peer: str, addresses: tuple[str, ...]) -> None:
        """Discovery knows the peer under these addresses."""
        if peer != self._me.node:
            self._tasks.spawn(self._known(peer, addresses, ""))

    def left(self, peer: str) -> None:
        """Discovery has heard the peer's goodbye."""
        self._tasks.spawn(self._post(PeerLeft(peer)))

    async def heard(self, who: Introduction, source: str, leaving: bool) -> None:
        """The peer has spoken to us, from ``source``."""
        if leaving:
            await self._post(PeerLeft(who.node))
            return
        address = from_source(who.address, source)
        await self._known(who.node, () if address is None else (address,), who.name)

    async def _answered(self, address: str, who: Introduction) -> None:
        """A static peer has answered."""
        if who.node == self._me.node:
            log.debug("%s in mesh.peers is this node itself", address, extra=fields(address=address))
            return
        await self._known(who.node, (address,), who.name)
        await self._post(PeerAnswered(who.node, who.name, who.schema, who.round))

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
