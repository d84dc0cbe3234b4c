"""``Monitor``: what operators read. Nothing here changes anything."""

from __future__ import annotations

import grpc

from decaf_node.daemon.report_wire import peer_to_wire, round_to_wire, status_to_wire
from decaf_node.daemon.status import Status
from decaf_node.errors import DecafError
from decaf_node.v1 import monitor_pb2 as pb
from decaf_node.v1 import monitor_pb2_grpc

ROUNDS = 100
ROUNDS_LIMIT = 1000
ROUND_LIMIT = 2**53


class MonitorService(monitor_pb2_grpc.MonitorServicer):
    """Answers from ``Status``."""

    def __init__(self, status: Status) -> None:
        self._status = status

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: grpc.aio.ServicerContext[pb.GetStatusRequest, pb.GetStatusReply]
    ) -> pb.GetStatusReply:
        """See monitor.proto."""
        return status_to_wire(self._status.status())

    async def ListPeers(
        self, request: pb.ListPeersRequest, context: grpc.aio.ServicerContext[pb.ListPeersRequest, pb.ListPeersReply]
    ) -> pb.ListPeersReply:
        """See monitor.proto."""
        return pb.ListPeersReply(peers=[peer_to_wire(peer) for peer in self._status.peers()])

    async def ListRounds(
        self, request: pb.ListRoundsRequest, context: grpc.aio.ServicerContext[pb.ListRoundsRequest, pb.ListRoundsReply]
    ) -> pb.ListRoundsReply:
        """See monitor.proto."""
        limit = min(request.limit or ROUNDS, ROUNDS_LIMIT)
        try:
            rows = await self._status.rounds(min(request.before, ROUND_LIMIT), limit)
        except DecafError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return pb.ListRoundsReply(rounds=[round_to_wire(row) for row in rows])
