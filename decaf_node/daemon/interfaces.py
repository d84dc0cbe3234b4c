"""Which of this host's addresses are used on the LAN: chosen by name, address or pattern, and really there."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import ifaddr

from decaf_node.settings import DiscoverySection


@dataclass(frozen=True, order=True)
class Address:
    """One address of an interface. index: the kernel's number of the interface; prefix: bits of its network."""

    interface: str
    index: int
    ip: str
    prefix: int

    @property
    def is_v4(self) -> bool:
        return ":" not in self.ip

    @property
    def is_link_local_v6(self) -> bool:
        return not self.is_v4 and ipaddress.ip_address(self.ip).is_link_local


def own_ips() -> frozenset[str]:
    """Return every address of this host."""
    return frozenset(
        ip.ip if isinstance(ip.ip, str) else ip.ip[0] for adapter in ifaddr.get_adapters() for ip in adapter.ips
    )


def usable_addresses(settings: DiscoverySection) -> tuple[Address, ...]:
    """Return the chosen addresses of this host that can be used right now, sorted.

    An address that the kernel lists but does not let us bind (an IPv6 one that is still being checked for
    duplicates) is left out until it can be used.
    """
    return tuple(sorted(address for address in chosen(settings, ifaddr.get_adapters()) if _bindable(address)))


def chosen(settings: DiscoverySection, adapters: Iterable[ifaddr.Adapter]) -> set[Address]:
    """Return the addresses that the settings choose: those named, else all but the skipped interfaces'."""
    addresses = {
        Address(adapter.name, adapter.index or 0, ip.ip if isinstance(ip.ip, str) else ip.ip[0], ip.network_prefix)
        for adapter in adapters
        for ip in adapter.ips
    }
    if settings.interfaces:
        named = set(settings.interfaces)
        return {address for address in addresses if address.interface in named or address.ip in named}
    return {address for address in addresses if not any(fnmatchcase(address.interface, skip) for skip in settings.skip)}


def speaking(addresses: Iterable[Address]) -> list[Address]:
    """Return one address for each interface and kind of IP from which zeroconf is to speak.

    One is enough, as a multicast group is joined once an interface. IPv6 needs a link-local address; where two
    interfaces have the same one, as VLANs do, zeroconf cannot tell them apart, and the first has it.
    """
    v4: dict[int, Address] = {}
    v6: dict[int, Address] = {}
    for address in sorted(addresses):
        if address.is_v4:
            v4.setdefault(address.index, address)
        elif address.is_link_local_v6 and address.ip not in {other.ip for other in v6.values()}:
            v6.setdefault(address.index, address)
    return [*v4.values(), *v6.values()]


def announced(addresses: Iterable[Address], listen: str) -> list[str]:
    """Return the addresses under which others reach a server that listens on ``listen``, IPv4 first.

    A link-local IPv6 address is told only of an interface that has no other: it is worth nothing to a host that
    hears of it over IPv4.
    """
    reached = [address for address in addresses if _listens(listen, address)]
    better = {address.index for address in reached if not address.is_link_local_v6}
    told = [address for address in reached if not address.is_link_local_v6 or address.index not in better]
    return [address.ip for address in sorted(told, key=lambda address: (not address.is_v4, address))]


def best_first(ips: Iterable[str], own: Iterable[Address]) -> list[str]:
    """Sort a peer's addresses: those in a network that we share come first, IPv4 before IPv6.

    A link-local IPv6 address that does not say its interface is left out.
    """
    networks = [ipaddress.ip_interface(f"{address.ip}/{address.prefix}").network for address in own]

    def rank(ip: str) -> tuple[bool, bool, bool]:
        parsed = ipaddress.ip_address(ip.partition("%")[0])
        return (not any(parsed in network for network in networks), parsed.is_link_local, parsed.version == 6)

    return sorted((ip for ip in dict.fromkeys(ips) if "%" in ip or not ip.startswith("fe80:")), key=rank)


def _listens(listen: str, address: Address) -> bool:
    match listen:
        case "0.0.0.0":  # noqa: S104 - is compared, never bound
            return address.is_v4
        case "::" | "[::]" | "":
            return True
        case "localhost":
            return ipaddress.ip_address(address.ip).is_loopback
        case _:
            return address.ip == listen.strip("[]").partition("%")[0]


def _bindable(address: Address) -> bool:
    family = socket.AF_INET if address.is_v4 else socket.AF_INET6
    place = (address.ip, 0) if address.is_v4 else (address.ip, 0, 0, address.index)
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(place)
    except OSError:
        return False
    return True
