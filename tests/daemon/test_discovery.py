"""Nodes as processes of their own find each other over the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from zeroconf._dns import DNSPointer
from zeroconf._protocol.outgoing import DNSOutgoing
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from decaf_node.daemon.discovery import SERVICE, Discovery
from tests.daemon import finding

PATIENCE_SECONDS = 90.0


class Child:
    """A node in a process of its own."""

    def __init__(self, node: str, process: asyncio.subprocess.Process) -> None:
        self.node = node
        self.process = process
        self.said: list[Any] = []

    async def until(self, *wanted: Any) -> None:
        """Wait until the node says ``wanted``; what it says before is kept in ``said``."""
        assert self.process.stdout is not None
        while True:
            line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE_SECONDS)
            assert line, f"{self.node} ended before it said {wanted}; it said {self.said}"
            self.said.append(json.loads(line))
            if self.said[-1] == list(wanted):
                return

    def announce(self, schema: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{schema}\n".encode())

    async def close(self) -> None:
        """Let it say goodbye, and read what it said last."""
        out, _ = await asyncio.wait_for(self.process.communicate(b""), PATIENCE_SECONDS)
        self.said += [json.loads(line) for line in out.splitlines()]
        assert self.process.returncode == 0


@pytest.fixture
def mesh() -> str:
    """A mesh of its own, so that runs at the same time do not meet."""
    return secrets.token_hex(8)


@pytest.fixture
def names() -> tuple[str, str]:
    return f"A{secrets.token_hex(8)}".upper(), f"B{secrets.token_hex(8)}".upper()


Start = Callable[[str, str, int], Awaitable[Child]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with contextlib.AsyncExitStack() as stack:

        async def started(node: str, mesh: str, port: int) -> Child:
            command = [sys.executable, "-m", "tests.daemon.finding", node, mesh, str(port)]
            process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
            stack.push_async_callback(ended, process)
            child = Child(node, process)
            await child.until("ready")
            return child

        yield started


async def ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.communicate()


@pytest.mark.slow
async def test_two_nodes_of_one_host_find_each_other_and_part(mesh: str, names: tuple[str, str], start: Start) -> None:
    a = await start(names[0], mesh, 7001)
    b = await start(names[1], mesh, 7002)
    await b.until("found", a.node, ["127.0.0.1:7001"])
    await a.until("found", b.node, ["127.0.0.1:7002"])
    await b.close()
    await a.until("left", b.node)
    await a.close()
    assert all(said[1] == b.node for said in a.said if said[0] in ("found", "left")), "it never finds itself"
    assert not [said for said in a.said + b.said if said[0] == "warned"]


@pytest.mark.slow
async def test_a_node_of_another_mesh_is_ignored(mesh: str, names: tuple[str, str], start: Start) -> None:
    await start(names[0], mesh + "-other", 7001)
    b = await start(names[1], mesh, 7002)
    third = await start(f"C{secrets.token_hex(8)}".upper(), mesh, 7003)
    await b.until("found", third.node, ["127.0.0.1:7003"])
    await third.until("found", b.node, ["127.0.0.1:7002"])
    await b.close()
    await third.close()
    assert names[0] not in json.dumps(b.said + third.said)


@pytest.mark.slow
async def test_a_node_that_was_killed_and_started_again_is_found_again(
    mesh: str, names: tuple[str, str], start: Start
) -> None:
    a = await start(names[0], mesh, 7001)
    for _ in range(2):
        b = await start(names[1], mesh, 7002)
        await a.until("found", b.node, ["127.0.0.1:7002"])
        b.process.kill()
        await b.process.communicate()
    moved = await start(names[1], mesh, 7005)
    await a.until("found", moved.node, ["127.0.0.1:7005"])


@pytest.mark.slow
async def test_the_schema_is_announced_and_no_news_of_an_address(
    mesh: str, names: tuple[str, str], start: Start
) -> None:
    a = await start(names[0], mesh, 7001)
    b = await start(names[1], mesh, 7002)
    await b.until("found", a.node, ["127.0.0.1:7001"])
    a.announce("5f1c")
    expected = {b"id": a.node.encode(), b"mesh": mesh.encode(), b"v": b"1", b"schema": b"5f1c"}
    while await text_of(a.node) != expected:
        pass
    await b.close()
    assert len([said for said in b.said if said[0] == "found"]) == 1


async def text_of(node: str) -> dict[bytes, bytes | None]:
    """Ask with an empty cache: a record that was heard before would be believed for the two minutes of its life."""
    zeroconf = AsyncZeroconf(["127.0.0.1"])
    info = AsyncServiceInfo(SERVICE, f"{node}.{SERVICE}")
    await info.async_request(zeroconf.zeroconf, 1000)
    await zeroconf.async_close()
    return info.properties


async def test_a_cloned_identity_is_seen_at_both_places(mesh: str, names: tuple[str, str], start: Start) -> None:
    original = await start(names[0], mesh, 7001)
    clone = await start(names[0], mesh, 7002)
    await asyncio.gather(
        original.until("warned", "discovery.cloned-identity"), clone.until("warned", "discovery.cloned-identity")
    )


async def test_no_name_that_somebody_announces_deafens_it(mesh: str, names: tuple[str, str], start: Start) -> None:
    a = await start(names[0], mesh, 7001)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker:
        speaker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for name in ("x.other._tcp.local.", SERVICE, f"{'x' * 63}.{'y' * 63}.{SERVICE}", f"\x01.{SERVICE}"):
            out = DNSOutgoing(0x8400)
            out.add_answer_at_time(DNSPointer(SERVICE, 12, 1, 120, name), 0)
            speaker.sendto(out.packets()[0], ("224.0.0.251", 5353))
    b = await start(names[1], mesh, 7002)
    await a.until("found", b.node, ["127.0.0.1:7002"])
    await a.close()


async def test_without_mdns_nothing_is_opened(mesh: str) -> None:
    said: list[str] = []
    off = finding.LOOPBACK.model_copy(update={"mdns": False, "interfaces": ("no-such-interface",)})
    discovery = Discovery(
        "A", "a", mesh, 7001, off, lambda *_: None, said.append, warn=lambda *_: said.append("warned")
    )
    await discovery.start()
    await discovery.announce("5f1c")
    await discovery.close()
    assert said == []


async def test_without_an_interface_it_says_so_and_goes_on(mesh: str) -> None:
    said: list[tuple[str, str]] = []
    nowhere = finding.LOOPBACK.model_copy(update={"interfaces": ("no-such-interface",)})
    discovery = Discovery(
        "A", "a", mesh, 7001, nowhere, lambda *_: None, lambda _: None, warn=lambda *warned: said.append(warned)
    )
    await discovery.start()
    await discovery.announce("5f1c")
    await discovery.close()
    await discovery.close()
    assert [reason for reason, _ in said] == ["discovery.no-interface"]
    assert "no-such-interface" in said[0][1]


async def test_an_address_that_nobody_reaches_is_not_announced(mesh: str, names: tuple[str, str], start: Start) -> None:
    said: list[str] = []
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    silent = Discovery(
        names[0],
        "a",
        mesh,
        7001,
        finding.LOOPBACK,
        lambda node, _: found.set_result(node),
        lambda _: None,
        listen="192.0.2.1",
        warn=lambda reason, _: said.append(reason),
    )
    await silent.start()
    other = await start(names[1], mesh, 7002)
    assert await asyncio.wait_for(found, PATIENCE_SECONDS) == other.node, "it finds others all the same"
    third = await start(f"C{secrets.token_hex(8)}".upper(), mesh, 7003)
    await other.until("found", third.node, ["127.0.0.1:7003"])
    await silent.close()
    await other.close()
    assert said == ["discovery.not-announced"]
    assert names[0] not in json.dumps(other.said)


# --- networks that change, in a namespace of their own ------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["addresses", "port_taken"])
def test_in_a_network_of_its_own(scenario: str) -> None:
    for tool in ("unshare", "ip"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} command")
    namespace = ["unshare", "--net", "--fork", "--kill-child"]
    trial = subprocess.run([*namespace, "true"], capture_output=True, text=True, check=False)
    if trial.returncode:
        pytest.skip(f"a network namespace cannot be made here: {trial.stderr.strip()}")
    command = [*namespace, sys.executable, "-W", "error", "-m", "tests.daemon.finding_in_a_namespace", scenario]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("done\n")
