"""Addresses ``host:port`` as text: what is taken from strangers, what gRPC is given, what is told to others."""

from __future__ import annotations

import ipaddress
import re
import socket

PORT = re.compile(r"[0-9]{1,5}")
HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def split(address: str) -> tuple[str, int] | None:
    """Return host and port of ``host:port`` or ``[v6]:port``; None if it is neither."""
    host, _, port = address.rpartition(":")
    if PORT.fullmatch(port) is None or not 0 < int(port) <= 65535:
        return None
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if _ip(bare) is None and HOST_NAME.fullmatch(bare) is None:
        return None
    return bare, int(port)


def join(host: str, port: int) -> str:
    """Return ``host:port``, with brackets where the host is an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def target(address: str) -> str:
    """Return the gRPC target of a ``host:port`` that ``split`` takes: never a file, a socket or another scheme."""
    parts = split(address)
    assert parts is not None, "addresses are checked where they come in"
    match _ip(parts[0]):
        case ipaddress.IPv4Address():
            return f"ipv4:{join(*parts)}"
        case ipaddress.IPv6Address():
            return f"ipv6:{join(parts[0].replace('%', '%25'), parts[1])}"
        case _:
            return f"dns:///{join(*parts)}"


def from_source(claimed: str, source: str) -> str | None:
    """Return the address of a peer that claims ``claimed`` and whose connection comes from ``source``; None: of no use.

    A wildcard stands for the host that the connection comes from. A loopback address, or a name, means nothing
    when it comes from another host. source: as gRPC names it, ``ipv4:1.2.3.4:5`` or ``ipv6:%5B::1%5D:5``.
    """
    parts, caller = split(claimed), host_of(source)
    claimed_ip, caller_ip = _ip(parts[0]) if parts else None, _ip(caller)
    if parts is None or claimed_ip is None or caller_ip is None:
        return None
    if claimed_ip.is_unspecified:
        return join(caller, parts[1])
    return None if claimed_ip.is_loopback and not caller_ip.is_loopback else join(*parts)


def is_of_use(told: str, source: str) -> bool:
    """Say whether the address of a third node, told by one at ``source``, may mean the same node here.

    A name, a wildcard or an address with a scope may not; a loopback address does only if the teller is on this
    machine. source: as for ``from_source``, or a ``target``.
    """
    parts = split(told)
    ip = _ip(parts[0]) if parts else None
    if ip is None or ip.is_unspecified or ip.is_multicast or "%" in told:
        return False
    return not ip.is_loopback or _is_local(host_of(source))


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` is this machine only. Raises OSError if it is a name that cannot be resolved."""
    return all(
        ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback
        for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    )


def host_of(source: str) -> str:
    """Return the host of a connection's source or target; empty if it has none."""
    address = source.partition(":")[2].lstrip("/").replace("%5B", "[").replace("%5D", "]").replace("%25", "%")
    parts = split(address)
    return parts[0] if parts else ""


def _is_local(host: str) -> bool:
    ip = _ip(host)
    return host == "localhost" if ip is None else ip.is_loopback


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
