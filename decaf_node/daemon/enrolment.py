"""``Enrolment``: how a device gets its first certificate. A listener of its own, open only while one is expected."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric import ec

from decaf_node.daemon.addresses import host_of, join
from decaf_node.daemon.certificates import fingerprint, pem_of, read_request
from decaf_node.daemon.interfaces import announced, usable_addresses
from decaf_node.daemon.invitations import Invitations
from decaf_node.daemon.join_token import JoinToken, write_token
from decaf_node.daemon.listening import SERVER_OPTIONS, in_use, try_port
from decaf_node.daemon.logs import fields
from decaf_node.daemon.node_id import node_of, printed, short
from decaf_node.daemon.problems import Notices, Problems, problem_of
from decaf_node.daemon.prompt import Prompt
from decaf_node.daemon.rpc_errors import refuse
from decaf_node.daemon.texts import readable
from decaf_node.daemon.trust import OwnMesh
from decaf_node.daemon.waiting_list import Applicant, WaitingList
from decaf_node.daemon.wire import NAME_LIMIT
from decaf_node.errors import DecafError, NotAllowed
from decaf_node.link import TrainerReady
from decaf_node.settings import Settings
from decaf_node.v1 import enrolment_pb2 as pb
from decaf_node.v1 import enrolment_pb2_grpc

CLOSE_SECONDS = 1.0
CONNECTIONS_AT_MOST = 64
CALLS_AT_MOST = 32
MESSAGE_LIMIT_BYTES = 64 * 1024
MEMBERS_AT_MOST = 16
PARTS_LIMIT_BYTES = 1024 * 1024
OPTIONS: list[tuple[str, Any]] = [
    *((name, value) for name, value in SERVER_OPTIONS if "message_length" not in name),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS_AT_MOST),
]

log = logging.getLogger(__name__)


class Enrolment(enrolment_pb2_grpc.EnrolmentServicer):
    """Lets devices in.

    members:  returns addresses of members, this node's first
    ready:    returns what this node's trainer has said of itself; None until then
    opened:   called with the port when the listener opens, and with 0 when it closes
    problems: is told where the listener cannot open
    """

    def __init__(
        self,
        own: OwnMesh,
        settings: Settings,
        members: Callable[[], list[str]],
        ready: Callable[[], TrainerReady | None],
        opened: Callable[[int], None],
        problems: Problems,
    ) -> None:
        self._own = own
        self._settings = settings
        self._members = members
        self._ready = ready
        self._opened = opened
        self._problems = problems
        self._invitations = Invitations(own.folder, settings.limits.invitations)
        self._waiting = WaitingList(settings.limits.waiting)
        self._notices = Notices()
        self._one_at_a_time = asyncio.Lock()  # of those that write to the disk, in a thread
        self._server: grpc.aio.Server | None = None
        self._port = 0

    # --- for operators --------------------------------------------------------------------------------------------

    async def invite(self, ttl: float, uses: int) -> str:
        """Return the line of a new invitation.

        Raises NotAllowed ``security.no-inviter``, TryAgain ``invite.too-many`` or ``listen.port-in-use``.
        """
        self._own.signing.issuer()
        async with self._one_at_a_time:
            secret = await asyncio.to_thread(self._invitations.make, ttl, uses)
        await self._open()
        authority = self._own.tls.papers.authorities[0]
        places = tuple(join(host, self._port) for host in reached_at(self._settings))
        return write_token(JoinToken(self._settings.mesh.name, places, fingerprint(authority), secret))

    async def wait_for_applicants(self, seconds: float) -> list[Applicant]:
        """Let devices ask for so long; return who waits now. Raises as ``invite`` does."""
        self._own.signing.issuer()
        if seconds > 0:
            self._waiting.open(seconds)
            await self._open()
        return self._waiting.waiting()

    async def approve(self, node: str, as_inviter: bool) -> bool:
        """Let a device in that waits; say whether it did. A member may become an inviter.

        Raises NotAllowed ``security.no-inviter`` or ``approve.not-founder``, or ``approve.not-waiting``.
        """
        self._own.signing.issuer()
        if as_inviter:
            async with self._one_at_a_time:
                await asyncio.to_thread(self._own.signing.grant, node)
        waits = self._waiting.approve(node)
        if not waits and not as_inviter:
            raise NotAllowed(
                "approve.not-waiting", f"The node {short(node)} does not wait; run `decaf-node join` on it first."
            )
        return waits

    # --- for devices ----------------------------------------------------------------------------------------------

    async def GetMesh(
        self, request: pb.GetMeshRequest, context: grpc.aio.ServicerContext[pb.GetMeshRequest, pb.GetMeshReply]
    ) -> pb.GetMeshReply:
        """See enrolment.proto."""
        papers = self._own.tls.papers
        return pb.GetMeshReply(
            mesh=self._settings.mesh.name, authority=pem_of(papers.authorities[:1]), between=pem_of(papers.chain[1:])
        )

    async def Enrol(
        self, request: pb.EnrolRequest, context: grpc.aio.ServicerContext[pb.EnrolRequest, pb.EnrolReply]
    ) -> pb.EnrolReply:
        """See enrolment.proto."""
        source = host_of(context.peer())
        try:
            public = read_request(request.signing_request)
            async with self._one_at_a_time:
                certificate = await self._certificate(request, public, source)
        except DecafError as error:
            self._notices.say(error.reason, f"Did not let in a device at {source}: {error.message}", source)
            await refuse(context, error)
        if not certificate and not (request.look_only and request.secret):
            return pb.EnrolReply()  # a stranger that waits is told nothing
        return pb.EnrolReply(certificate=certificate, members=self._members()[:MEMBERS_AT_MOST], **self._trained())

    def _trained(self) -> dict[str, Any]:
        """Return what is trained here, for a device to compare."""
        ready = self._ready()
        if ready is None:
            return {}
        parts = json.dumps(ready.parts).encode()
        return {"schema": ready.schema, "parts": parts if len(parts) <= PARTS_LIMIT_BYTES else b""}

    async def _certificate(self, request: pb.EnrolRequest, public: ec.EllipticCurvePublicKey, source: str) -> bytes:
        """Return the certificate of a device; nothing while it waits."""
        node, name = node_of(public), readable(request.name[:NAME_LIMIT])
        if why := self._own.revocations.refusal(node):
            raise NotAllowed("security.revoked", f"The key of this device cannot be used any more: {why}.")
        if request.look_only:
            if request.secret:
                self._invitations.check(request.secret, node)
            return b""
        if request.secret:
            await asyncio.to_thread(self._invitations.redeem, request.secret, node)
        elif not self._waiting.ask(node, name, source):
            self._notices.say("join.waits", f"{name} at {source} asks to join. Its node ID: {printed(node)}", node)
            return b""
        certificate = self._own.signing.certificate(public)
        self._waiting.done(node)
        log.info("Let in %s (%s), from %s.", name, short(node), source, extra=fields(event="let-in", peer=node))
        return certificate

    # --- the listener ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Open the listener for invitations that are still open, and close it when nobody is expected, until ended."""
        try:
            while True:
                await self._follow()
                await asyncio.sleep(CLOSE_SECONDS)
        finally:
            await self._close()

    async def _follow(self) -> None:
        if not self._is_expecting():
            self._problems.clear("enrolment")
            await self._close()
            return
        try:
            await self._open()
        except DecafError as error:
            self._problems.set("enrolment", problem_of(error, "Devices are expected, but cannot join: "))
        else:
            self._problems.clear("enrolment")

    def _is_expecting(self) -> bool:
        expected = self._waiting.is_open or time.time() < self._invitations.open_until()
        return self._own.signing.can and expected

    async def _open(self) -> None:
        if self._server is not None:
            return
        listen, papers = self._settings.listen, self._own.tls.papers
        try_port(listen.address, listen.enrolment_port)
        server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=CALLS_AT_MOST, interceptors=[Prompt()])
        enrolment_pb2_grpc.add_EnrolmentServicer_to_server(self, server)
        credentials = grpc.ssl_server_credentials([(papers.key_pem, pem_of(papers.chain))])
        self._server = server
        try:
            self._port = server.add_secure_port(join(listen.address, listen.enrolment_port), credentials)
        except RuntimeError as error:
            self._server = None
            raise in_use(listen.address, listen.enrolment_port) from error
        await server.start()
        self._opened(self._port)
        log.info("Devices can join at port %d.", self._port)

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop(CLOSE_SECONDS)
            self._opened(0)
            log.info("Nobody is expected to join now.")


def reached_at(settings: Settings) -> list[str]:
    """Return the addresses of this device under which others reach what it listens on."""
    listen = settings.listen.address
    if listen not in ("0.0.0.0", "::"):  # noqa: S104 - is compared, never bound
        return [listen.strip("[]")]
    return announced(usable_addresses(settings.discovery), listen) or ["127.0.0.1"]
