"""The service between nodes: where it listens, who may speak, and which streams become edges."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import grpc

from decaf_node.daemon.addresses import join
from decaf_node.daemon.edges import Edges
from decaf_node.daemon.listening import SERVER_OPTIONS, in_use, try_port
from decaf_node.daemon.meeting import Meeting
from decaf_node.daemon.news_wire import news_from_wire, news_to_wire
from decaf_node.daemon.pace import Pace
from decaf_node.daemon.problems import Notices
from decaf_node.daemon.prompt import Prompt
from decaf_node.daemon.security import Security
from decaf_node.daemon.transport import ServerTransport
from decaf_node.daemon.trust_wire import signed_from_wire, signed_to_wire
from decaf_node.daemon.upkeep import Upkeep, cloned
from decaf_node.daemon.wire import (
    Introduction,
    Refusal,
    bad_frame,
    check_version,
    decode,
    encode,
    introduction_from_wire,
    introduction_to_wire,
)
from decaf_node.errors import DecafError, NotAllowed, TryAgain
from decaf_node.mesh.rumours import NO_NEWS
from decaf_node.settings import LimitsSection, ListenSection
from decaf_node.v1 import mesh_pb2, mesh_pb2_grpc

if TYPE_CHECKING:
    from decaf_node.daemon.transport import Context

log = logging.getLogger(__name__)

FIRST_FRAME_SECONDS = 10.0  # for the introduction of who has opened a stream


class MeshService(mesh_pb2_grpc.MeshServicer):
    """Answers other nodes.

    me:      returns how this node introduces itself now
    meeting: is told of who has spoken
    upkeep:  answers what is asked about certificates and revocations
    pace:    how many calls a member may make
    """

    def __init__(
        self,
        me: Callable[[], Introduction],
        edges: Edges,
        meeting: Meeting,
        security: Security,
        upkeep: Upkeep,
        pace: Pace,
    ) -> None:
        self._me = me
        self._edges = edges
        self._meeting = meeting
        self._security = security
        self._upkeep = upkeep
        self._pace = pace
        self._notices = Notices()

    async def Hello(
        self,
        request: mesh_pb2.HelloRequest,
        context: grpc.aio.ServicerContext[mesh_pb2.HelloRequest, mesh_pb2.HelloReply],
    ) -> mesh_pb2.HelloReply:
        """Say who answers, and what it knows of the mesh; refuse those of another. Who only looks is not heard."""
        try:
            caller = self._security.caller(context)
            introduction = introduction_from_wire(getattr(request, "from"))
            self._check(introduction, caller, request.looking)
        except DecafError as error:
            self._say_refused(error, context.peer())
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        if request.looking:
            return self._reply(mesh_pb2.HelloReply())
        clone = self._upkeep.heard(introduction, context.peer())
        news = NO_NEWS
        if clone is not None and not clone.first:
            self._meeting.passed_over(introduction, context.peer())
        else:
            theirs = news_from_wire(request.news, context.peer())
            news = await self._meeting.greeted(introduction, context.peer(), theirs, request.leaving)
        return self._reply(
            mesh_pb2.HelloReply(
                news=news_to_wire(news),
                clone="" if clone is None else clone.source,
                renew=self._upkeep.may_invite(introduction.node),
            )
        )

    def _reply(self, reply: mesh_pb2.HelloReply) -> mesh_pb2.HelloReply:
        """Say who answers, and when."""
        getattr(reply, "from").CopyFrom(introduction_to_wire(self._me()))
        reply.time = time.time()
        return reply

    async def Revocations(
        self,
        request: mesh_pb2.RevocationsRequest,
        context: grpc.aio.ServicerContext[mesh_pb2.RevocationsRequest, mesh_pb2.RevocationsReply],
    ) -> mesh_pb2.RevocationsReply:
        """Take the caller's list of revocations if it is newer than ours; say ours."""
        try:
            self._security.caller(context)
            theirs = signed_from_wire(request.revocations) if request.HasField("revocations") else None
            ours = self._upkeep.exchange(theirs)
        except DecafError as error:
            self._say_refused(error, context.peer())
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return mesh_pb2.RevocationsReply(revocations=None if ours is None else signed_to_wire(ours))

    async def Renew(
        self,
        request: mesh_pb2.RenewRequest,
        context: grpc.aio.ServicerContext[mesh_pb2.RenewRequest, mesh_pb2.RenewReply],
    ) -> mesh_pb2.RenewReply:
        """Sign for a new certificate of the caller's key, if this node may."""
        try:
            self._security.caller(context)
            certificate, inviter = await self._upkeep.renewed(context)
        except DecafError as error:
            self._say_refused(error, context.peer())
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return mesh_pb2.RenewReply(certificate=certificate, inviter=inviter)

    async def Exchange(  # type: ignore[override]
        self, request_iterator: AsyncIterator[mesh_pb2.Frame], context: Context
    ) -> None:
        """Be the other end of an edge; returns when it has ended."""
        transport = ServerTransport(context)
        await context.send_initial_metadata(())
        caller = ""
        try:
            caller = self.admit(context)
            introduction = await self._introduction(transport)
            self._check(introduction, caller)
            clone = self._upkeep.heard(introduction, context.peer())
            if clone is not None and not clone.first:
                raise NotAllowed("identity.cloned", f"{cloned(clone.source).words} and only that one is mixed")
            await self._meeting.heard(introduction, context.peer())
            if refusal := self._edges.refusal(introduction.node):
                await transport.write(encode(Refusal(*refusal)))
                return
        except DecafError as error:
            if error.reason == "edge.broken":
                return  # there is nobody any more to turn away
            if caller and error.reason == "mesh.bad-frame":
                self._edges.blame(caller)
            await self._turn_away(transport, error, context.peer())
            return
        await self._edges.take(introduction.node, transport)

    def admit(self, context: grpc.aio.ServicerContext[Any, Any]) -> str:
        """Return who calls, as ``Security.caller`` does. Raises TryAgain ``mesh.too-many-calls`` too."""
        caller = self._security.caller(context)
        self._pace.take(caller or context.peer())
        return caller

    def hear(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Admit who makes a plain call, before its request is waited for; say who is not. Raises as ``admit`` does."""
        try:
            self.admit(context)
        except DecafError as error:
            self._say_refused(error, context.peer())
            raise

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

    def _check(self, who: Introduction, caller: str, looking: bool = False) -> None:
        """Raise NotAllowed or BadData unless who speaks is another node of our mesh and of our protocol.

        caller:  whose certificate it has shown; empty where nobody can know
        looking: it only looks, and may be this node: it sees by the answer whether it is
        """
        me = self._me()
        if caller not in ("", who.node):
            raise NotAllowed(
                "security.other-id", f"It says that it is {who.node[:8]}, but its certificate is {caller[:8]}'s."
            )
        check_version(who)
        if who.mesh != me.mesh:
            raise NotAllowed(
                "mesh.other-mesh",
                f"This node is of the mesh {me.mesh!r} and {who.name or who.node[:8]} is of {who.mesh!r}; "
                "set mesh.name the same to mix.",
            )
        if who.node == me.node and not looking:
            raise NotAllowed("mesh.own-id", "This node has the same ID: a node need not speak to itself.")

    async def _turn_away(self, transport: ServerTransport, error: DecafError, source: str) -> None:
        self._say_refused(error, source)
        with contextlib.suppress(TryAgain):
            await transport.write(encode(Refusal(error.reason, error.message)))

    def _say_refused(self, error: DecafError, source: str) -> None:
        host = source.rpartition(":")[0]  # the port is another one each time
        self._notices.say(error.reason, f"Refused a node at {host}: {error.message}", host)


async def start_server(
    service: MeshService, settings: ListenSection, limits: LimitsSection, security: Security
) -> tuple[grpc.aio.Server, int]:
    """Listen for other nodes; return the server and its port.

    Raises TryAgain ``listen.port-in-use``, NotAllowed ``listen.forbidden``, BadSettings ``listen.bad-address``.
    """
    try_port(settings.address, settings.port)
    options = [*SERVER_OPTIONS, ("grpc.max_allowed_incoming_connections", limits.connections)]
    server = grpc.aio.server(
        options=options, maximum_concurrent_rpcs=2 * limits.streams, interceptors=[Prompt(service.hear)]
    )
    mesh_pb2_grpc.add_MeshServicer_to_server(service, server)
    try:
        port = security.listen(server, join(settings.address, settings.port))
    except RuntimeError as error:
        raise in_use(settings.address, settings.port) from error
    await server.start()
    return server, port
