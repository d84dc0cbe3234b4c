"""The interfaces, and multicast on them: a question is really sent, and who answers is listened to."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import ifaddr

from decaf_node.daemon.discovery import SERVICE
from decaf_node.daemon.doctor.finding import Finding, failure, unseen, warning, well
from decaf_node.daemon.interfaces import Address, announced, own_ips, speaking, usable_addresses
from decaf_node.daemon.lan import Heard
from decaf_node.daemon.node_id import short
from decaf_node.errors import BadSettings, TryAgain
from decaf_node.settings import DiscoverySection, Settings

LAYER = "network"
PORT = 5353
GROUP_V4, GROUP_V6 = "224.0.0.251", "ff02::fb"
LISTEN_SECONDS = 2.5
PACKET_BYTES = 9000
PACKETS_AT_MOST = 1024  # kept of what is heard on one address
TYPE_PTR, CLASS_IN = 12, 1  # RFC 1035
HOPS = 255  # RFC 6762, section 11
IP_MULTICAST_ALL, IPV6_MULTICAST_ALL = 49, 29  # linux/in.h, in6.h: 0 hears this interface only
CAN_MULTICAST = 0x1000  # IFF_MULTICAST
INTERFACES = Path("/sys/class/net")


@dataclass(frozen=True)
class Probe:
    """What became of a question on one address. others: who else speaks mDNS there; error: it could not be sent."""

    address: Address
    own: bool = False
    others: frozenset[str] = frozenset()
    error: OSError | None = None


# --- what is there ----------------------------------------------------------------------------------------------------


def look_at_interfaces(settings: Settings, adapters: Iterable[ifaddr.Adapter]) -> tuple[list[Address], list[Finding]]:
    """Return the addresses from which multicast is to be spoken, and what was found of the interfaces."""
    usable = usable_addresses(settings.discovery)
    skipped = list(_skipped(settings.discovery, adapters, {address.interface for address in usable}))
    if not usable:
        return [], [failure(LAYER, "interfaces", _none(skipped), _choose(skipped))]
    names = sorted({address.interface for address in usable})
    found = [_look_at_interface(name, [address for address in usable if address.interface == name]) for name in names]
    if skipped:
        found.append(well(LAYER, "skipped", "; ".join(skipped.words for skipped in skipped)))
    if not announced(usable, settings.listen.address):
        found.append(_not_announced(settings, names))
    return speaking(usable), found


@dataclass(frozen=True)
class Skipped:
    """An interface with an address that is not used, and why."""

    name: str
    words: str


def _skipped(settings: DiscoverySection, adapters: Iterable[ifaddr.Adapter], used: set[str]) -> Iterator[Skipped]:
    for adapter in adapters:
        name = str(adapter.name)
        if name in used or name == "lo" or not adapter.ips:
            continue
        pattern = next((skip for skip in settings.skip if fnmatchcase(name, skip)), "")
        why = "not in discovery.interfaces" if settings.interfaces else f"{pattern} in discovery.skip"
        yield Skipped(name, f"{name} ({why if settings.interfaces or pattern else 'no address can be used'})")


def _none(skipped: Sequence[Skipped]) -> TryAgain:
    there = ", ".join(each.words for each in skipped) or "there is none but lo"
    return TryAgain("discovery.no-interface", f"No network interface is used for discovery: {there}.")


def _choose(skipped: Sequence[Skipped]) -> str:
    if not skipped:
        return "connect this device to a network   (ip address shows what it has)"
    return f'if it is the right one: discovery.interfaces = ["{skipped[0].name}"] in the settings'


def _look_at_interface(name: str, addresses: Sequence[Address]) -> Finding:
    if _read(name, "operstate") in ("down", "lowerlayerdown", "notpresent"):
        return failure(LAYER, name, TryAgain("network.no-link", f"{name} has an address, and no link."))
    if not int(_read(name, "flags") or "0x1000", 16) & CAN_MULTICAST:
        return failure(LAYER, name, TryAgain("multicast.no-flag", f"{name} is set to carry no multicast."))
    return well(LAYER, name, ", ".join(f"{address.ip}/{address.prefix}" for address in addresses))


def _read(name: str, what: str) -> str:
    try:
        return (INTERFACES / name / what).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _not_announced(settings: Settings, names: Sequence[str]) -> Finding:
    return warning(
        LAYER,
        "listen.address",
        "discovery.not-announced",
        f"This node listens on {settings.listen.address}, which others cannot reach over {', '.join(names)}.",
        'set listen.address = "0.0.0.0" in the settings, and restart the daemon',
    )


# --- multicast --------------------------------------------------------------------------------------------------------


async def probe(addresses: Sequence[Address], seconds: float = LISTEN_SECONDS) -> list[Probe]:
    """Ask for our service from each address, and listen for so long: to ourselves and to others."""
    own = own_ips()
    return list(await asyncio.gather(*(_probe(address, own, seconds) for address in addresses)))


async def _probe(address: Address, own: Collection[str], seconds: float) -> Probe:
    question = _question()
    try:
        with _socket(address) as sock:
            sock.sendto(question, (GROUP_V4, PORT) if address.is_v4 else (GROUP_V6, PORT, 0, address.index))
            heard = await _listen(sock, seconds)
    except OSError as error:
        return Probe(address, error=error)
    others = frozenset(source for source, _ in heard if source not in own)
    return Probe(address, own=any(source in own and data == question for source, data in heard), others=others)


def _question() -> bytes:
    """Return the packet that asks who offers our service: RFC 1035, one question and no identifier."""
    labels = (label.encode() for label in SERVICE.rstrip(".").split("."))
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack("!6H", 0, 0, 1, 0, 0, 0) + name + struct.pack("!2H", TYPE_PTR, CLASS_IN)


def _socket(address: Address) -> socket.socket:
    """Return a socket that speaks to the mDNS group, and hears it, on this interface alone. Raises OSError."""
    sock = socket.socket(socket.AF_INET if address.is_v4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if address.is_v4:
            own = socket.inet_aton(address.ip)
            sock.bind((GROUP_V4, PORT))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP_V4) + own)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, HOPS)
            sock.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
        else:
            index = struct.pack("@I", address.index)
            sock.bind((GROUP_V6, PORT, 0, address.index))
            sock.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(sock.family, GROUP_V6) + index
            )
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOPS)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)
    except OSError:
        sock.close()
        raise
    return sock


async def _listen(sock: socket.socket, seconds: float) -> list[tuple[str, bytes]]:
    heard: list[tuple[str, bytes]] = []
    loop = asyncio.get_running_loop()

    def take() -> None:
        with contextlib.suppress(OSError):  # there is nothing after all, or the interface has gone
            data, source = sock.recvfrom(PACKET_BYTES)
            if len(heard) < PACKETS_AT_MOST:
                heard.append((str(source[0]).partition("%")[0], data))

    loop.add_reader(sock, take)
    try:
        await asyncio.sleep(seconds)
    finally:
        loop.remove_reader(sock)
    return heard


# --- judging ----------------------------------------------------------------------------------------------------------


def judge_multicast(
    probes: Sequence[Probe], heard: Sequence[Heard], mesh: str, node: str, reached: Mapping[str, str], known: int
) -> list[Finding]:
    """Judge what came back.

    heard:   whose announcements were heard
    node:    this node's ID
    reached: names of members that answer TCP, by address
    known:   how many members are known, from wherever
    """
    found = list(dict.fromkeys(finding for each in probes if (finding := _broken(each)) is not None))
    whole = [each for each in probes if _broken(each) is None]
    members = {each.node for each in heard if each.mesh == mesh and each.node != node}
    if members:
        names = ", ".join(sorted(map(short, members)))
        return [*found, well(LAYER, "multicast", f"members of {mesh!r} are heard: {names}")]
    if not whole:
        return found
    if known and not reached:
        names = ", ".join(sorted({each.address.interface for each in whole}))
        return [*found, well(LAYER, "multicast", f"own packets are heard on {names}, and no member's; see peers")]
    return [*found, _nobody(whole, heard, mesh, node, reached)]


def _broken(each: Probe) -> Finding | None:
    name = each.address.interface
    if each.error is not None:
        said = each.error.strerror or str(each.error)
        reason = "discovery.failed" if "in use" in said else "multicast.not-sent"
        return failure(LAYER, name, TryAgain(reason, f"Nothing can be sent to mDNS's group on {name}: {said}."))
    if not each.own:
        deaf = f"What is sent to mDNS's group on {name} is not heard here: a firewall of this machine drops it."
        return failure(LAYER, name, TryAgain("multicast.not-heard", deaf))
    return None


def _nobody(
    whole: Sequence[Probe], heard: Sequence[Heard], mesh: str, node: str, reached: Mapping[str, str]
) -> Finding:
    """No member was heard: say why that is."""
    names = ", ".join(sorted({each.address.interface for each in whole}))
    near = [name for address, name in reached.items() if any(_same_network(each.address, address) for each in whole)]
    others = sorted({each.mesh for each in heard if each.node != node and each.mesh != mesh})
    if near:
        dropped = f"{near[0]} answers on this network, and is not heard by mDNS: the network drops multicast."
        return warning(LAYER, "multicast", "multicast.filtered", dropped)
    if reached:
        return well(LAYER, "multicast", f"own packets are heard on {names}; the members that answer are elsewhere")
    if others:
        other = f"No member of {mesh!r} is heard on {names}, but nodes of {', '.join(map(repr, others))} are."
        return failure(LAYER, "multicast", BadSettings("mesh.other-name", other))
    if any(each.others for each in whole):
        works = (
            f"Multicast works on {names}, and no node of {mesh!r} is announced there: none runs, or it is elsewhere."
        )
        return failure(LAYER, "multicast", TryAgain("multicast.nobody-heard", works))
    silent = f"Nobody answers mDNS on {names}: no other node runs on this network, or the network drops multicast."
    return failure(LAYER, "multicast", TryAgain("multicast.nobody-heard", silent))


def _same_network(own: Address, address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_interface(f"{own.ip}/{own.prefix}").network
    except ValueError:
        return False


def not_looked_for(why: str) -> Finding:
    """Multicast was not looked at."""
    return unseen(LAYER, "multicast", why)
