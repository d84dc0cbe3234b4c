"""One gRPC channel to each address in use, made where it is first called and looked at anew when trust has changed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from decaf_node.daemon.security import Line, Security
from decaf_node.daemon.wire import MESSAGE_LIMIT_BYTES
from decaf_node.v1 import mesh_pb2, mesh_pb2_grpc

CHANNELS_AT_MOST = 64  # kept open without a call: the far members that are probed now and then would pile up
WINDOW_BYTES = 1024 * 1024  # under way on a stream: 100 Mbit/s at 80 ms there and back, 1 Gbit/s at 8 ms
CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.keepalive_time_ms", 10_000),  # so that a stream whose other end has vanished ends
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.http2.bdp_probe", 0),  # a window that grows by itself would hold many MB of each stream in memory
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.enable_http_proxy", 0),  # neighbours are never behind one
    ("grpc.use_local_subchannel_pool", 1),  # a channel never takes over the connection of one that believed otherwise
]


@dataclass
class Kept:
    """A channel that is kept. version: of the security when it was made; calls: under way on it."""

    line: Line
    version: int
    calls: int = 0


@dataclass(frozen=True)
class Way:
    """The service at an address, and whose certificate answers there (empty in plaintext)."""

    stub: mesh_pb2_grpc.MeshAsyncStub
    node: str

    async def renew(self, timeout: float) -> tuple[bytes, bytes]:
        """Ask for a new certificate, and an inviter's if one waits, both PEM. Raises what gRPC raises."""
        reply = await self.stub.Renew(mesh_pb2.RenewRequest(), timeout=timeout)
        return reply.certificate, reply.inviter


class Channels:
    """Keeps the channels of a node."""

    def __init__(self, security: Security) -> None:
        self._security = security
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._old: list[Kept] = []
        self._making: dict[str, asyncio.Task[Kept]] = {}

    @asynccontextmanager
    async def calling(self, address: str) -> AsyncIterator[Way]:
        """Give the way to ``address``; its channel stays open meanwhile. Raises what ``Security.line`` does."""
        kept = await self._get(address)
        kept.calls += 1
        try:
            yield Way(mesh_pb2_grpc.MeshStub(kept.line.channel), kept.line.node)
        finally:
            kept.calls -= 1
            await self._close_old()

    def distrust(self, address: str) -> None:
        """Something is wrong there: look anew at who answers, before the next call."""
        if kept := self._kept.pop(address, None):
            self._old.append(kept)

    async def forget(self, used: Collection[str]) -> None:
        """Close channels on which there is no call: to addresses that are not in use, and too many others."""
        idle = [address for address, kept in self._kept.items() if not kept.calls]
        spare = [address for address in idle if address not in used]
        for address in (*spare, *(address for address in idle[:-CHANNELS_AT_MOST] if address in used)):
            self.distrust(address)
        await self._close_old()

    async def close(self) -> None:
        """Let all channels go."""
        for making in self._making.values():
            making.cancel()
        for kept in (*self._kept.values(), *self._old):
            await kept.line.channel.close()
        self._kept.clear()
        self._old.clear()

    async def _get(self, address: str) -> Kept:
        kept = self._kept.get(address)
        if kept is not None and kept.version != self._security.version:
            self.distrust(address)
            kept = None
        if kept is None:
            kept = await asyncio.shield(self._making.get(address) or self._make(address))
        if address in self._kept:
            self._kept.move_to_end(address)
        return kept

    def _make(self, address: str) -> asyncio.Task[Kept]:
        """Begin to make a channel; whoever else wants it meanwhile waits for the same one."""

        async def make() -> Kept:
            version = self._security.version
            kept = Kept(await self._security.line(address, CHANNEL_OPTIONS), version)
            self._kept[address] = kept
            return kept

        def made(task: asyncio.Task[Kept]) -> None:
            del self._making[address]
            if not task.cancelled():
                task.exception()  # told to those who wait, if anyone still does

        task = self._making[address] = asyncio.create_task(make())
        task.add_done_callback(made)
        return task

    async def _close_old(self) -> None:
        done = [kept for kept in self._old if not kept.calls]
        self._old = [kept for kept in self._old if kept.calls]
        for kept in done:
            await kept.line.channel.close()
