"""The service between nodes: where it listens, who may speak, and which streams become edges."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import grpc

from decaf_node.daemon.addresses import is_loopback, join
from decaf_node.daemon.dial import WINDOW_BYTES
from decaf_node.daemon.edges import Edges
from decaf_node.daemon.meeting import Meeting
from decaf_node.daemon.news_wire import news_from_wire, news_to_wire
from decaf_node.daemon.problems import Notices
from decaf_node.daemon.transport import ServerTransport
from decaf_node.daemon.wire import (
    MESSAGE_LIMIT_BYTES,
    VERSION,
    Introduction,
    Refusal,
    bad_frame,
    decode,
    encode,
    introduction_from_wire,
    introduction_to_wire,
)
from decaf_node.errors import BadData, BadSettings, DecafError, NotAllowed, TryAgain
from decaf_node.settings import ListenSection
from decaf_node.v1 import mesh_pb2, mesh_pb2_grpc

if TYPE_CHECKING:
    from decaf_node.daemon.transport import Context

log = logging.getLogger(__name__)

FIRST_FRAME_SECONDS = 10.0  # for the introduction of who has opened a stream
CALLS_A_CONNECTION = 16  # a neighbour needs two: a stream and a hello
SERVER_OPTIONS = [
    ("grpc.so_reuseport", 0),  # two daemons on one port are an error, not a lottery
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_concurrent_streams", CALLS_A_CONNECTION),
    ("grpc.http2.bdp_probe", 0),  # a window that grows by itself would hold many MB of each stream in memory
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
]


class MeshService(mesh_pb2_grpc.MeshServicer):
    """Answers other nodes.

    me:      returns how this node introduces itself now
    meeting: is told of who has spoken
    """

    def __init__(self, me: Callable[[], Introduction], edges: Edges, meeting: Meeting) -> None:
        self._me = me
        self._edges = edges
        self._meeting = meeting
        self._notices = Notices()

    async def Hello(
        self,
        request: mesh_pb2.HelloRequest,
        context: grpc.aio.ServicerContext[mesh_pb2.HelloRequest, mesh_pb2.HelloReply],
    ) -> mesh_pb2.HelloReply:
        """Say who answers, and what it knows of the mesh; refuse those of another."""
        try:
            introduction = introduction_from_wire(getattr(request, "from"))
            self._check(introduction)
        except DecafError as error:
            self._say_refused(error, context.peer())
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        theirs = news_from_wire(request.news, context.peer())
        news = await self._meeting.greeted(introduction, context.peer(), theirs, request.leaving)
        return mesh_pb2.HelloReply(news=news_to_wire(news), **{"from": introduction_to_wire(self._me())})

    async def Exchange(  # type: ignore[override]
        self, request_iterator: AsyncIterator[mesh_pb2.Frame], context: Context
    ) -> None:
        """Be the other end of an edge; returns when it has ended."""
        transport = ServerTransport(context)
        await context.send_initial_metadata(())
        try:
            introduction = await self._introduction(transport)
            self._check(introduction)
            await self._meeting.heard(introduction, context.peer())
            if refusal := self._edges.refusal(introduction.node):
                await transport.write(encode(Refusal(*refusal)))
                return
        except DecafError as error:
            await self._turn_away(transport, error, context.peer())
            return
        await self._edges.take(introduction.node, transport)

    async def _introduction(self, transport: ServerTransport) -> Introduction:
        try:
            message = await asyncio.wait_for(transport.read(), FIRST_FRAME_SECONDS)
        except asyncio.TimeoutError:
            message = None
        if message is None:
            raise bad_frame("no introduction")
        frame = decode(message)
        if not isinstance(frame, Introduction):
            raise bad_frame("something else first than its introduction")
        return frame

    def _check(self, who: Introduction) -> None:
        """Raise NotAllowed or BadData unless who speaks is another node of our mesh and of our protocol."""
        me = self._me()
        if who.version != VERSION:
            raise BadData(
                "mesh.other-version",
                f"This node speaks version {VERSION} of the protocol and {who.name or who.node[:8]} speaks "
                f"{who.version}; update the older one.",
            )
        if who.mesh != me.mesh:
            raise NotAllowed(
                "mesh.other-mesh",
                f"This node is of the mesh {me.mesh!r} and {who.name or who.node[:8]} is of {who.mesh!r}; "
                "set mesh.name the same to mix.",
            )
        if who.node == me.node:
            raise NotAllowed("mesh.own-id", "This node has the same ID: a node need not speak to itself.")

    async def _turn_away(self, transport: ServerTransport, error: DecafError, source: str) -> None:
        self._say_refused(error, source)
        with contextlib.suppress(TryAgain):
            await transport.write(encode(Refusal(error.reason, error.message)))

    def _say_refused(self, error: DecafError, source: str) -> None:
        host = source.rpartition(":")[0]  # the port is another one each time
        self._notices.say(error.reason, f"Refused a node at {host}: {error.message}", host)


async def start_server(service: MeshService, settings: ListenSection, streams: int) -> tuple[grpc.aio.Server, int]:
    """Listen for other nodes; return the server and its port. streams: most edges at a time.

    Raises NotAllowed ``listen.insecure``, TryAgain ``listen.port-in-use`` or ``listen.failed``, BadSettings
    ``listen.bad-address``.
    """
    check_address(settings)
    server = grpc.aio.server(options=SERVER_OPTIONS, maximum_concurrent_rpcs=2 * streams)
    mesh_pb2_grpc.add_MeshServicer_to_server(service, server)
    try:
        port = server.add_insecure_port(join(settings.address, settings.port))
    except RuntimeError as error:
        raise _in_use(settings) from error
    await server.start()
    return server, port


def check_address(settings: ListenSection) -> None:
    """Raise unless this node may and can listen there; say so once where it is plaintext for others to read."""
    try:
        local = is_loopback(settings.address)
    except OSError as error:
        raise BadSettings(
            "listen.bad-address",
            f"listen.address {settings.address!r} is no address of this machine ({error.strerror}); "
            "use one of its own, or 0.0.0.0 for all.",
        ) from error
    if not local and not settings.insecure:
        raise NotAllowed(
            "listen.insecure",
            f"Listening on {settings.address} would send snapshots in plaintext over the network; use 127.0.0.1, "
            "or allow it with --insecure on a network that you trust.",
        )
    if not local:
        log.warning("Listening on %s in plaintext: anyone on this network can read and join.", settings.address)
    _try_port(settings)


def _try_port(settings: ListenSection) -> None:
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((settings.address, settings.port))
        except OSError as error:
            match error.errno:
                case errno.EADDRINUSE:
                    raise _in_use(settings) from error
                case errno.EACCES:
                    raise NotAllowed(
                        "listen.forbidden",
                        f"Port {settings.port} is kept for root; set listen.port to one from 1024.",
                    ) from error
                case _:
                    raise BadSettings(
                        "listen.bad-address",
                        f"listen.address {settings.address!r} is no address of this machine ({error.strerror}); "
                        "use one of its own, or 0.0.0.0 for all.",
                    ) from error


def _in_use(settings: ListenSection) -> TryAgain:
    return TryAgain(
        "listen.port-in-use",
        f"Port {settings.port} of {settings.address} is in use by another program; stop that one, or set listen.port "
        "to another (0 takes a free one).",
    )
