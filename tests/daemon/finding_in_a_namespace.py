"""Two nodes on one host whose network changes; run in a network namespace: ``... SCENARIO``. Ends with ``done``."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from decaf_node.daemon.discovery import Discovery
from decaf_node.settings import DiscoverySection

PATIENCE_SECONDS = 60.0
QUICK = DiscoverySection(refresh=0.5)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def make_lan() -> None:
    """An interface without an address; its other end is of a kind that is skipped."""
    ip("link", "add", "lan", "type", "veth", "peer", "name", "veth-other")
    for end in ("lan", "veth-other"):
        ip("link", "set", end, "addrgenmode", "none", "up")


class Node:
    """A node whose discovery tells into a queue."""

    def __init__(self, name: str, port: int) -> None:
        self.said: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self.discovery = Discovery(
            name,
            name,
            "lab",
            port,
            QUICK,
            lambda node, addresses: self.said.put_nowait(("found", node, *addresses)),
            lambda node: self.said.put_nowait(("left", node)),
            listen="::",
            warn=lambda reason, _: self.said.put_nowait(("warned", reason)),
        )

    async def until(self, *wanted: str) -> list[tuple[Any, ...]]:
        """Wait until it tells ``wanted``, or something that begins so; return all that it told until then."""
        told = [()]
        while told[-1][: len(wanted)] != wanted:
            told.append(await asyncio.wait_for(self.said.get(), PATIENCE_SECONDS))
            print(*told[-1], flush=True)
        return told


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[Node, Node]]:
    a, b = Node("AAAA", 7001), Node("BBBB", 7002)
    await asyncio.gather(a.discovery.start(), b.discovery.start())
    yield a, b
    await asyncio.gather(a.discovery.close(), b.discovery.close())


async def both_find(a: Node, b: Node, *hosts: str) -> None:
    for node, other, port in ((a, "BBBB", 7002), (b, "AAAA", 7001)):
        said = await node.until("found", other, *(f"{host}:{port}" for host in hosts))
        assert not [one for one in said if one[:1] == ("left",)], "a change of addresses is no goodbye"


async def addresses() -> None:
    """No network at first; then an address, another one, then only IPv6, then nothing, then the first again."""
    ip("link", "set", "lo", "up")
    async with two_nodes() as (a, b):
        await asyncio.gather(a.until("warned", "discovery.no-interface"), b.until("warned", "discovery.no-interface"))
        make_lan()
        ip("address", "add", "10.9.0.1/24", "dev", "lan")
        await both_find(a, b, "10.9.0.1")
        ip("address", "flush", "dev", "lan")
        ip("address", "add", "10.9.7.2/24", "dev", "lan")
        await both_find(a, b, "10.9.7.2")
        ip("address", "flush", "dev", "lan")
        ip("address", "add", "fe80::77/64", "dev", "lan", "scope", "link")
        await both_find(a, b, f"[fe80::77%{socket.if_nametoindex('lan')}]")
        ip("address", "flush", "dev", "lan")
        await asyncio.gather(a.until("warned", "discovery.no-interface"), b.until("warned", "discovery.no-interface"))
        ip("address", "add", "10.9.0.1/24", "dev", "lan")
        await both_find(a, b, "10.9.0.1")
        ip("address", "add", "fd77::1/64", "dev", "lan")
        ip("address", "add", "fe80::77/64", "dev", "lan", "scope", "link")
        await both_find(a, b, "10.9.0.1", "[fd77::1]")


async def port_taken() -> None:
    """Another program has mDNS's port for itself, and then ends."""
    make_lan()
    ip("address", "add", "10.9.0.1/24", "dev", "lan")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as selfish:
        selfish.bind(("", 5353))
        async with two_nodes() as (a, b):
            await asyncio.gather(a.until("warned", "discovery.failed"), b.until("warned", "discovery.failed"))
            selfish.close()
            await both_find(a, b, "10.9.0.1")


if __name__ == "__main__":
    asyncio.run({"addresses": addresses, "port_taken": port_taken}[sys.argv[1]]())
    print("done")
