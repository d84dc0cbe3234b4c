"""Each known member, layer by layer: address, route, TCP, TLS, identity; then what it trains, and how far it is."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from decaf_node.daemon.addresses import split
from decaf_node.daemon.certificates import check_time, inviter_of, is_signed_by, mesh_of, pem_of
from decaf_node.daemon.channels import Channels
from decaf_node.daemon.dial import Seen, look_at
from decaf_node.daemon.doctor.identity import Shown
from decaf_node.daemon.interfaces import own_ips
from decaf_node.daemon.node_id import node_of, short
from decaf_node.daemon.security import MutualTls, look
from decaf_node.daemon.wire import Introduction
from decaf_node.errors import BadData, DecafError, NotAllowed, TryAgain

TCP_SECONDS = 9.0  # the kernel takes eight to find out that nobody has an address any more
AT_ONCE = 16
PEERS_AT_MOST = 64
ADDRESSES_AT_MOST = 3  # of a peer; the best come first


@dataclass(frozen=True)
class Known:
    """A member, or an address where one should be. node: empty if it is not known who is there."""

    node: str
    name: str
    addresses: tuple[str, ...]

    @property
    def title(self) -> str:
        return self.name or (short(self.node) if self.node else self.addresses[0])


@dataclass(frozen=True)
class Visit:
    """How far one came at an address. seen: who answers; ahead: by how much this clock is ahead of his, in seconds.

    reached:    TCP was answered
    out_of_date: the certificate there has expired, or is not valid yet, by this clock
    ours:       the daemon of this machine answers
    """

    peer: Known
    address: str
    error: DecafError | None = None
    reached: bool = False
    seen: Seen | None = None
    ahead: float | None = None
    out_of_date: str = ""
    ours: bool = False


@dataclass
class Step:
    """What is known while one goes on."""

    peer: Known
    address: str
    reached: bool = False
    out_of_date: str = ""
    seen: Seen | None = None
    ahead: float | None = field(default=None)
    ours: bool = False


class Visits:
    """Visits members. me: as this node introduces itself; shown: what it has to show, and whom it believes.

    instance: of the daemon of this machine; empty if none runs
    """

    def __init__(self, me: Introduction, shown: Shown, instance: str = "") -> None:
        self._me = me
        self._shown = shown
        self._instance = instance
        self._channels = None if shown.security is None else Channels(shown.security)

    async def all(self, peers: Sequence[Known]) -> list[Visit]:
        """Visit each at its addresses, until one is right; return for each how far one came at the best.

        Where the daemon of this machine answers, under whatever name, it is left out.
        """
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(peer: Known) -> Visit:
            async with turns:
                return await self._visit(peer)

        try:
            visits = await asyncio.gather(*(one(peer) for peer in peers))
            return [visit for visit in visits if not visit.ours]
        finally:
            if self._channels is not None:
                await self._channels.close()

    async def _visit(self, peer: Known) -> Visit:
        visits = []
        for address in peer.addresses[:ADDRESSES_AT_MOST]:
            visits.append(await self._visit_at(Step(peer, address)))
            if visits[-1].error is None:
                return visits[-1]
        if not visits:
            return Visit(peer, "", TryAgain("peer.no-address", f"No address of {peer.title} is known."))
        return max(visits, key=lambda visit: visit.reached)

    async def _visit_at(self, step: Step) -> Visit:
        ways: list[Callable[[Step], Awaitable[None]]] = [find_route, knock]
        ways += [self._look] if self._shown.authorities else []
        ways += [self._ask] if self._channels is not None else []
        error: DecafError | None = None
        try:
            for way in ways:
                await way(step)
        except DecafError as found:
            error = found
        return Visit(step.peer, step.address, error, step.reached, step.seen, step.ahead, step.out_of_date, step.ours)

    async def _look(self, step: Step) -> None:
        """TLS: whose certificate is it, and is it his?"""
        try:
            shown = await look(step.address, pem_of(self._shown.authorities).decode())
        except TryAgain as error:
            if error.reason != "peer.other-certificate":
                raise
            await self._explain(step, error)
        security = self._shown.security
        node = security.admit(shown) if isinstance(security, MutualTls) else node_of(shown.public_key())
        if node == self._me.node and not await self._is_ours(step):
            raise NotAllowed("identity.cloned", f"Another device, at {step.address}, has the identity of this node.")
        if step.peer.node not in ("", node):
            raise NotAllowed(
                "peer.other-node",
                f"The node {short(node)} answers at {step.address}, and {step.peer.title} should.",
            )

    async def _is_ours(self, step: Step) -> bool:
        """Tell whether it is the daemon of this machine that answers there, by its instance."""
        if self._channels is None or not self._instance:
            return False
        seen = await look_at(self._channels, step.address, self._me)
        return seen.who.instance == self._instance

    async def _explain(self, step: Step, error: TryAgain) -> NoReturn:
        """Look at a certificate that TLS does not believe: is it another mesh's, or one whose time is over?"""
        shown = await look(step.address)
        ours = any(is_signed_by(shown, authority) for authority in self._shown.authorities)
        try:
            check_time(shown, time.time())
        except NotAllowed as dated:
            if ours or inviter_of(shown):
                step.out_of_date = dated.reason.partition(".")[2] if ours else ""
                said = f"{step.address}, node {short(node_of(shown.public_key()))}: {dated.message}"
                raise NotAllowed(dated.reason.replace("certificate.", "peer.certificate-"), said) from None
        mesh = mesh_of(shown)
        theirs = f"{step.address} shows a certificate of another mesh's authority{f' ({mesh!r})' if mesh else ''}."
        raise NotAllowed("peer.other-mesh", theirs) from error

    async def _ask(self, step: Step) -> None:
        assert self._channels is not None
        try:
            before = time.time()
            seen = await look_at(self._channels, step.address, self._me)
        except NotAllowed as error:
            if "[security.revoked]" in error.message:
                raise NotAllowed("security.revoked", f"{step.peer.title} says: {error.message}") from None
            raise
        step.seen = seen
        step.ahead = (before + time.time()) / 2 - seen.time if seen.time else None
        if step.peer.node not in ("", seen.who.node):
            raise BadData("peer.other-node", f"{short(seen.who.node)} answers at {step.address}.")
        step.ours = bool(self._instance) and seen.who.instance == self._instance


async def find_route(step: Step) -> None:
    """Find the host and a route to it. Raises TryAgain ``peer.name-unknown`` or ``peer.no-route``."""
    parts = split(step.address)
    assert parts is not None, "addresses are checked where they come in"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(*parts, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: what cannot be a name at all
        raise TryAgain("peer.name-unknown", f"The name {parts[0]} is not known: {error}.") from None
    family, kind, protocol, _, place = found[0]
    with socket.socket(family, kind, protocol) as way:
        try:
            way.connect(place)  # UDP: it asks the kernel for a route, and sends nothing
        except OSError as error:
            raise TryAgain("peer.no-route", f"There is no route to {step.address}: {error.strerror}.") from None


async def knock(step: Step) -> None:
    """Open a TCP connection. Raises TryAgain ``peer.refused``, ``peer.host-down`` or ``peer.silent``."""
    parts = split(step.address)
    assert parts is not None, "addresses are checked where they come in"
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(*parts, limit=1), TCP_SECONDS)
    except asyncio.TimeoutError:
        silent = f"{step.address} does not answer within {TCP_SECONDS:g} s: a firewall there drops what comes."
        raise TryAgain("peer.silent", silent) from None
    except ConnectionRefusedError:
        refused = f"The device at {step.address} answers, and nothing listens on that port: no daemon runs there."
        raise TryAgain("peer.refused", refused) from None
    except OSError as error:
        if error.errno == errno.EHOSTUNREACH:
            raise TryAgain("peer.host-down", f"No device has the address of {step.address} now.") from None
        raise TryAgain("peer.silent", f"{step.address} cannot be reached: {error.strerror}.") from None
    step.reached = True
    writer.transport.abort()


async def leads_here(address: str, port: int) -> bool:
    """Tell whether the address, or the name, is this machine's and has this port."""
    parts = split(address)
    if parts is None or parts[1] != port:
        return False
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts[0], None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    own = own_ips()
    ips = {str(place[0]).partition("%")[0] for *_, place in found}
    return all(ip in own or ipaddress.ip_address(ip).is_loopback for ip in ips)


def merged(told: Iterable[Known], loose: Iterable[str], node: str) -> list[Known]:
    """Return each node once with all its addresses, then the addresses of which it is not known who is there.

    told: may name a node several times; node: this node's ID, which is left out
    """
    nodes: dict[str, Known] = {}
    for each in told:
        before = nodes.get(each.node, Known(each.node, "", ()))
        addresses = tuple(dict.fromkeys((*before.addresses, *each.addresses)))
        nodes[each.node] = Known(each.node, before.name or each.name, addresses)
    nodes.pop(node, None)
    there = {address for known in nodes.values() for address in known.addresses}
    return [*nodes.values(), *(Known("", "", (address,)) for address in dict.fromkeys(loose) if address not in there)]
