"""Which meshes of this network expect a device to join, by mDNS."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from zeroconf import Error as ZeroconfError
from zeroconf import ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from decaf_node.daemon.addresses import join
from decaf_node.daemon.discovery import ASK_ALL, SERVICE
from decaf_node.daemon.interfaces import best_first, speaking, usable_addresses
from decaf_node.daemon.wire import NAME_LIMIT, readable
from decaf_node.settings import DiscoverySection

LOOK_SECONDS = 2.5
FOUND_AT_MOST = 64


@dataclass(frozen=True, order=True)
class OpenDoor:
    """A member that expects devices. address: of its enrolment listener."""

    mesh: str
    address: str


async def look_around(settings: DiscoverySection, seconds: float = LOOK_SECONDS) -> list[OpenDoor]:
    """Return what is announced on the interfaces that the settings choose, sorted; nothing where mDNS does not work."""
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
        infos = [AsyncServiceInfo(SERVICE, name) for name in names]
        known = [info for info in infos if info.load_from_cache(zeroconf.zeroconf)]
    finally:
        await zeroconf.async_close()
    doors = set()
    for info in known:
        port = (info.properties.get(b"join") or b"").decode("ascii", "replace")
        mesh = readable((info.properties.get(b"mesh") or b"").decode(errors="replace")[:NAME_LIMIT])
        if mesh and port.isdigit() and 0 < int(port) <= 65535:
            doors |= {OpenDoor(mesh, join(ip, int(port))) for ip in best_first(info.parsed_scoped_addresses(), own)[:1]}
    return sorted(doors)
