"""Who is announced on this network by mDNS: which meshes expect a device to join, and which members are there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from zeroconf import Error as ZeroconfError
from zeroconf import ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from decaf_node.daemon.addresses import join, split
from decaf_node.daemon.discovery import ADDRESS_LIMIT, ASK_ALL, SERVICE, read_service
from decaf_node.daemon.interfaces import Address, best_first, speaking, usable_addresses
from decaf_node.daemon.texts import NODE_ID, readable
from decaf_node.daemon.wire import NAME_LIMIT
from decaf_node.settings import DiscoverySection

LOOK_SECONDS = 2.5
FOUND_AT_MOST = 64

Told = TypeVar("Told", "OpenDoor", "Heard")
Read = Callable[[Zeroconf, str, Iterable[Address]], Told | None]


@dataclass(frozen=True, order=True)
class OpenDoor:
    """A member that expects devices. address: of its enrolment listener."""

    mesh: str
    address: str


@dataclass(frozen=True, order=True)
class Heard:
    """A node that is announced."""

    node: str
    mesh: str
    addresses: tuple[str, ...]


async def look_around(settings: DiscoverySection, seconds: float = LOOK_SECONDS) -> list[OpenDoor]:
    """Return what is announced on the interfaces that the settings choose, sorted; nothing where mDNS does not work."""
    return await _browse(settings, seconds, read_door)


async def listen_around(settings: DiscoverySection, seconds: float = LOOK_SECONDS) -> list[Heard]:
    """Return which nodes are announced, of whatever mesh, this one too; as ``look_around`` does."""
    return await _browse(settings, seconds, read_heard)


async def _browse(settings: DiscoverySection, seconds: float, read: Read[Told]) -> list[Told]:
    own = usable_addresses(settings)
    if not own:
        return []
    names: set[str] = set()

    def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if len(names) < FOUND_AT_MOST:
            names.add(name)

    try:
        zeroconf = AsyncZeroconf([address.ip for address in speaking(own)])
    except (OSError, RuntimeError, ZeroconfError):
        return []
    try:
        browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[changed], question_type=ASK_ALL)
        await asyncio.sleep(seconds)
        await browser.async_cancel()
        told = {read(zeroconf.zeroconf, name, own) for name in names}
    finally:
        await zeroconf.async_close()
    return sorted(each for each in told if each is not None)


def read_heard(zeroconf: Zeroconf, name: str, own: Iterable[Address]) -> Heard | None:
    """Return what is known of the node; None if that is not enough. own: this host's addresses."""
    info = read_service(zeroconf, name)
    node = name.removesuffix(f".{SERVICE}")
    if info is None or NODE_ID.fullmatch(node) is None:
        return None
    mesh = readable((info.properties.get(b"mesh") or b"").decode(errors="replace")[:NAME_LIMIT])
    ips = best_first(info.parsed_scoped_addresses(), own)
    places = (join(ip, info.port or 0) for ip in ips[:ADDRESS_LIMIT])
    return Heard(node, mesh, tuple(place for place in places if split(place) is not None))


def read_door(zeroconf: Zeroconf, name: str, own: Iterable[Address]) -> OpenDoor | None:
    """Return what is known of the service; None if it is no member, or expects nobody. own: this host's addresses."""
    info = read_service(zeroconf, name)
    if info is None:
        return None
    port = (info.properties.get(b"join") or b"").decode("ascii", "replace")
    mesh = readable((info.properties.get(b"mesh") or b"").decode(errors="replace")[:NAME_LIMIT])
    addresses = best_first(info.parsed_scoped_addresses(), own)[:1]
    places = [place for ip in addresses if split(place := f"{join(ip, 1).removesuffix('1')}{port}") is not None]
    return OpenDoor(mesh, places[0]) if mesh and places else None
