"""Ends of edges for tests: everything real but the machine, whose events are listed instead of decided upon."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc

from decaf_node.daemon.channels import CHANNEL_OPTIONS
from decaf_node.daemon.dial import Dialler
from decaf_node.daemon.edges import Edges
from decaf_node.daemon.exchange import Fresh
from decaf_node.daemon.host import Host, Me
from decaf_node.daemon.meeting import Meeting
from decaf_node.daemon.pace import Pace
from decaf_node.daemon.rpc import MeshService, start_server
from decaf_node.daemon.security import Plaintext, Security
from decaf_node.daemon.spool import Spool
from decaf_node.daemon.store import open_store
from decaf_node.daemon.tasks import Tasks
from decaf_node.daemon.trust import Open
from decaf_node.daemon.upkeep import Upkeep
from decaf_node.daemon.wire import Frame, Introduction, decode, encode
from decaf_node.mesh.events import Event, HelloReceived, Offer, Snapshot
from decaf_node.mesh.rumours import NO_NEWS, News
from decaf_node.settings import LimitsSection, ListenSection
from decaf_node.v1 import mesh_pb2, mesh_pb2_grpc
from tests.daemon.scripted_trainer import snapshot_bytes

Kind = TypeVar("Kind")
SCHEMA = "a" * 64
LOW, HIGH = "A" * 52, "Z" * 52
PATIENCE = 10.0
LEAST_RATE = 10_000


class End:
    """One node's end of its edges."""

    def __init__(
        self,
        node: str,
        folder: Path,
        chunk_bytes: int,
        streams: int,
        spool_bytes: int,
        security: Security,
        window: float,
    ) -> None:
        self.me = Me(node, f"node-{node[0]}", "lab", schema=SCHEMA, round=1)
        self.events: list[Event] = []
        self.tells = NO_NEWS
        self.tasks = Tasks()
        self.dialler = Dialler(self.me.introduction, lambda: self.tells, backoff=0.2, peers=8, security=security)
        self.store = open_store(folder / "state", "lab")
        self.spool = Spool(folder / "spool", spool_bytes)
        self.host = Host(
            self.me, self.store, self.spool, self.post, self.dialler.name, chunk_bytes, self.tasks, LEAST_RATE
        )
        self.edges = Edges(node, self.dialler, self.host, self.tasks, streams, window)
        self.meeting = Meeting(self.me, self.dialler, self.post, self.greet, self.tasks, self.host.said)
        self.service: MeshService | None = None
        self._news = asyncio.Event()

    async def post(self, event: Event, fresh: Fresh | None = None) -> None:
        if fresh is None or fresh():
            self.events.append(event)
            self._news.set()

    async def greet(self, event: HelloReceived) -> News:
        await self.post(event)
        return self.tells

    def publish(self, value: float = 1.0, bulk: int = 16, schema: str = SCHEMA, round: int = 1) -> Snapshot:
        """Put a snapshot into the spool and return it."""
        data = snapshot_bytes(value, round, schema, bulk)
        snapshot = Snapshot(hashlib.sha256(data).hexdigest(), round, 1, len(data))
        self.spool.path(snapshot.digest).write_bytes(data)
        return snapshot

    async def seen(self, kind: type[Kind], holds: Callable[[Kind], bool] = lambda _: True, count: int = 1) -> Kind:
        """Wait until so many such events have come; return the last of them."""

        def found() -> list[Kind]:
            return [event for event in self.events if isinstance(event, kind) and holds(event)]

        async def wait() -> Kind:
            while len(found()) < count:
                self._news.clear()
                await self._news.wait()
            return found()[count - 1]

        try:
            return await asyncio.wait_for(wait(), PATIENCE)
        except asyncio.TimeoutError:
            raise AssertionError(f"no {kind.__name__} x {count} in {self.events}") from None

    def count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)


@asynccontextmanager
async def end(
    node: str,
    folder: Path,
    chunk_bytes: int = 1024,
    streams: int = 8,
    listen: str = "127.0.0.1",
    spool_bytes: int = 64 * 1024 * 1024,
    security: Security | None = None,
    window: float = 120.0,
    calls: int = 1000,
) -> AsyncIterator[End]:
    """Give an end that listens, in plaintext unless ``security`` says otherwise."""
    security = security or Plaintext()
    this = End(node, folder / node[:4], chunk_bytes, streams, spool_bytes, security, window)
    upkeep = Upkeep(this.me, Open(node, Plaintext()), this.host.problems, lambda _: None)
    service = MeshService(this.me.introduction, this.edges, this.meeting, security, upkeep, Pace(calls))
    this.service = service
    limits = LimitsSection(streams=streams)
    server, port = await start_server(service, ListenSection(address=listen, port=0), limits, security)
    this.me.address = f"{listen}:{port}"
    try:
        yield this
    finally:
        await server.stop(0)
        await this.tasks.cancel()
        await this.dialler.close()
        this.host.close()
        this.store.close()
        if this.tasks.failed.done():
            this.tasks.failed.result()


def offer(snapshot: Snapshot | None, schema: str = SCHEMA) -> Offer:
    return Offer(schema, snapshot, round=1, degree=1, mixes=1)


def acquaint(one: End, other: End, address: str = "") -> None:
    """Let ``one`` know where the other is."""
    one.dialler.learn(other.me.node, (address or other.me.address,), other.me.name)


class Stranger:
    """A peer that says whatever a test wants."""

    def __init__(self, call: grpc.aio.StreamStreamCall[mesh_pb2.Frame, mesh_pb2.Frame]) -> None:
        self.call = call

    async def say(self, *frames: Frame | mesh_pb2.Frame) -> None:
        for frame in frames:
            await self.call.write(frame if isinstance(frame, mesh_pb2.Frame) else encode(frame))

    async def hear(self) -> Frame | None:
        """Return the next frame; None at the end of the stream."""
        frame = await asyncio.wait_for(self.call.read(), PATIENCE)
        return decode(frame) if isinstance(frame, mesh_pb2.Frame) else None


@asynccontextmanager
async def stranger(address: str) -> AsyncIterator[Stranger]:
    """Open a stream to the node at ``address`` without saying anything."""
    async with grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) as channel:
        call = mesh_pb2_grpc.MeshStub(channel).Exchange()
        try:
            yield Stranger(call)
        finally:
            call.cancel()


def introduction(node: str = HIGH, mesh: str = "lab", address: str = "", **more: Any) -> Introduction:
    return Introduction(node, "stranger", mesh, SCHEMA, 1, address, **more)


class Proxy:
    """A TCP line that can be cut. Counts what it carries towards the listener and back."""

    def __init__(self, port: int) -> None:
        self.to_listener = 0
        self.to_caller = 0
        self.cut_after: int | None = None
        self._port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._lines: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._line, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        if self._lines:
            await asyncio.wait(self._lines)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, back}
        await asyncio.gather(self._pump(reader, back, True), self._pump(there, writer, False))
        self._lines.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forth: bool) -> None:
        try:
            while block := await reader.read(4096):
                if forth:
                    self.to_listener += len(block)
                else:
                    self.to_caller += len(block)
                writer.write(block)
                await writer.drain()
                if self.cut_after is not None and self.to_listener + self.to_caller >= self.cut_after:
                    self.cut_after = None
                    self.cut()
        except (ConnectionError, OSError):
            pass
        finally:
            writer.close()
