"""``Control``: what operators do; and where they do it and read ``Monitor``: the local socket, and by mutual TLS."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import grpc

from decaf_node.daemon.acts import Acts, refuse_from_afar
from decaf_node.daemon.addresses import join
from decaf_node.daemon.driver import Driver
from decaf_node.daemon.durable import private_sockets
from decaf_node.daemon.gate import Gate
from decaf_node.daemon.health import Health, serve_channelz, serve_health
from decaf_node.daemon.holds import Holds
from decaf_node.daemon.listening import in_use, try_port
from decaf_node.daemon.monitor import MonitorService
from decaf_node.daemon.operators import CALLS_AT_MOST, OPTIONS, Operators
from decaf_node.daemon.prompt import Prompt
from decaf_node.daemon.rpc_errors import refuse
from decaf_node.daemon.security import MutualTls
from decaf_node.errors import DecafError, TryAgain
from decaf_node.v1 import control_pb2 as pb
from decaf_node.v1 import control_pb2_grpc, monitor_pb2_grpc

log = logging.getLogger(__name__)

OPERATOR = "operator"


class ControlService(control_pb2_grpc.ControlServicer):
    """Hands what operators want to those who do it."""

    def __init__(self, driver: Driver, holds: Holds, gate: Gate, acts: Acts) -> None:
        self._driver = driver
        self._holds = holds
        self._gate = gate
        self._acts = acts

    async def Pause(
        self, request: pb.PauseRequest, context: grpc.aio.ServicerContext[pb.PauseRequest, pb.PauseReply]
    ) -> pb.PauseReply:
        """See control.proto."""
        await self._holds.hold(OPERATOR, "an operator has paused it")
        return pb.PauseReply(phase=self._driver.view().phase)

    async def Resume(
        self, request: pb.ResumeRequest, context: grpc.aio.ServicerContext[pb.ResumeRequest, pb.ResumeReply]
    ) -> pb.ResumeReply:
        """See control.proto."""
        await self._holds.release(OPERATOR)
        return pb.ResumeReply(phase=self._driver.view().phase, why_paused=self._holds.why)

    async def Invite(
        self, request: pb.InviteRequest, context: grpc.aio.ServicerContext[pb.InviteRequest, pb.InviteReply]
    ) -> pb.InviteReply:
        """See control.proto."""
        try:
            return pb.InviteReply(token=await self._gate.invite(request.ttl_seconds, request.uses))
        except DecafError as error:
            await refuse(context, error)

    async def ListWaiting(
        self,
        request: pb.ListWaitingRequest,
        context: grpc.aio.ServicerContext[pb.ListWaitingRequest, pb.ListWaitingReply],
    ) -> pb.ListWaitingReply:
        """See control.proto."""
        try:
            waiting, authority = await self._gate.waiting(request.open_seconds)
        except DecafError as error:
            await refuse(context, error)
        listed = [pb.Waiting(node=each.node, name=each.name, source=each.source) for each in waiting]
        return pb.ListWaitingReply(waiting=listed, authority=authority)

    async def Approve(
        self, request: pb.ApproveRequest, context: grpc.aio.ServicerContext[pb.ApproveRequest, pb.ApproveReply]
    ) -> pb.ApproveReply:
        """See control.proto."""
        try:
            return pb.ApproveReply(joined=await self._gate.approve(request.node, request.as_inviter))
        except DecafError as error:
            await refuse(context, error)

    async def Revoke(
        self, request: pb.RevokeRequest, context: grpc.aio.ServicerContext[pb.RevokeRequest, pb.RevokeReply]
    ) -> pb.RevokeReply:
        """See control.proto."""
        try:
            return pb.RevokeReply(told=await self._gate.revoke(request.node))
        except DecafError as error:
            await refuse(context, error)

    async def Leave(
        self, request: pb.LeaveRequest, context: grpc.aio.ServicerContext[pb.LeaveRequest, pb.LeaveReply]
    ) -> pb.LeaveReply:
        """See control.proto."""
        answer = await self._acts.leave()
        return pb.LeaveReply(saved_round=answer.saved_round, told=answer.told)

    async def MixNow(
        self, request: pb.MixNowRequest, context: grpc.aio.ServicerContext[pb.MixNowRequest, pb.MixNowReply]
    ) -> pb.MixNowReply:
        """See control.proto."""
        try:
            return pb.MixNowReply(round=await self._acts.mix_now())
        except DecafError as error:
            await refuse(context, error)

    async def Evaluate(
        self, request: pb.EvaluateRequest, context: grpc.aio.ServicerContext[pb.EvaluateRequest, pb.EvaluateReply]
    ) -> pb.EvaluateReply:
        """See control.proto."""
        try:
            found = await self._acts.evaluate()
        except DecafError as error:
            await refuse(context, error)
        return pb.EvaluateReply(
            round=found.round,
            loss=found.loss,
            accuracy=found.accuracy,
            examples=found.examples,
            seconds=found.seconds,
        )

    async def Export(
        self, request: pb.ExportRequest, context: grpc.aio.ServicerContext[pb.ExportRequest, pb.ExportReply]
    ) -> pb.ExportReply:
        """See control.proto."""
        try:
            refuse_from_afar(request.folder, context.peer())
            answer = await self._acts.export(request.folder)
        except DecafError as error:
            await refuse(context, error)
        return pb.ExportReply(folder=answer.folder, round=answer.round)

    async def Reload(
        self, request: pb.ReloadRequest, context: grpc.aio.ServicerContext[pb.ReloadRequest, pb.ReloadReply]
    ) -> pb.ReloadReply:
        """See control.proto."""
        try:
            answer = await self._acts.reload()
        except DecafError as error:
            await refuse(context, error)
        return pb.ReloadReply(
            applied=answer.applied,
            needs_restart=answer.needs_restart,
            certificates=answer.certificates,
            sentence=answer.sentence,
        )

    async def SetLogLevel(
        self,
        request: pb.SetLogLevelRequest,
        context: grpc.aio.ServicerContext[pb.SetLogLevelRequest, pb.SetLogLevelReply],
    ) -> pb.SetLogLevelReply:
        """See control.proto."""
        try:
            return pb.SetLogLevelReply(before=self._acts.set_log_level(request.level))
        except DecafError as error:
            await refuse(context, error)


async def start_control(
    path: Path, monitor: MonitorService, control: ControlService, health: Health
) -> grpc.aio.Server:
    """Serve all on the Unix socket ``path`` (absolute), see ``durable.private_sockets``.

    A socket that is there is removed if nobody answers on it; raises TryAgain ``daemon.already-running`` if somebody
    does.
    """
    _clear(path)
    server = grpc.aio.server(options=[("grpc.enable_channelz", 1)])
    _serve(server, monitor, control, health)
    serve_channelz(server)
    with private_sockets(path.parent):
        server.add_insecure_port(f"unix:{path}")
    await server.start()
    return server


async def start_remote(
    listen: str,
    tls: MutualTls,
    operators: Operators,
    monitor: MonitorService,
    control: ControlService,
    health: Health,
) -> grpc.aio.Server:
    """Serve all at ``host:port`` to members, as ``operators`` lets them. Raises as ``rpc.start_server`` does."""
    host, _, port = listen.rpartition(":")
    try_port(host.strip("[]"), int(port))
    server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=CALLS_AT_MOST, interceptors=[Prompt(), operators])
    _serve(server, monitor, control, health)
    try:
        taken = tls.listen(server, listen)
    except RuntimeError as error:
        raise in_use(host, int(port)) from error
    await server.start()
    log.info("Operators of other devices can connect at %s.", join(host.strip("[]"), taken))
    return server


def _serve(server: grpc.aio.Server, monitor: MonitorService, control: ControlService, health: Health) -> None:
    monitor_pb2_grpc.add_MonitorServicer_to_server(monitor, server)
    control_pb2_grpc.add_ControlServicer_to_server(control, server)
    serve_health(server, health)


def _clear(path: Path) -> None:
    if _answers(path):
        raise TryAgain(
            "daemon.already-running",
            f"Another daemon answers at {path}; stop it, or choose another runtime folder with --runtime.",
        )
    path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(1.0)
        try:
            trial.connect(str(path))
        except OSError:
            return False
        return True
