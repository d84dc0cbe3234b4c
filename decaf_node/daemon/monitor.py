"""``Monitor``: what operators read. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc

from decaf_node.daemon.alert_wire import alert_to_wire
from decaf_node.daemon.event_wire import event_to_wire
from decaf_node.daemon.hub import WATCHERS
from decaf_node.daemon.report_wire import peer_to_wire, round_to_wire, status_to_wire
from decaf_node.daemon.rpc_errors import refuse
from decaf_node.daemon.status import Status
from decaf_node.daemon.topology_wire import topology_to_wire
from decaf_node.daemon.watching import Watching
from decaf_node.errors import DecafError
from decaf_node.v1 import monitor_pb2 as pb
from decaf_node.v1 import monitor_pb2_grpc

ROUNDS = 100
ROUNDS_LIMIT = 1000
ROUND_LIMIT = 2**53
FAR_WATCHERS = WATCHERS // 2  # the other half is kept for this device


class MonitorService(monitor_pb2_grpc.MonitorServicer):
    """Answers from ``Status`` and ``Watching``."""

    def __init__(self, status: Status, watching: Watching) -> None:
        self._status = status
        self._watching = watching

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

    async def GetTopology(
        self,
        request: pb.GetTopologyRequest,
        context: grpc.aio.ServicerContext[pb.GetTopologyRequest, pb.GetTopologyReply],
    ) -> pb.GetTopologyReply:
        """See monitor.proto."""
        return topology_to_wire(await self._status.topology())

    async def ListAlerts(
        self, request: pb.ListAlertsRequest, context: grpc.aio.ServicerContext[pb.ListAlertsRequest, pb.ListAlertsReply]
    ) -> pb.ListAlertsReply:
        """See monitor.proto."""
        return pb.ListAlertsReply(alerts=map(alert_to_wire, self._status.alerts(self._status.view())))

    async def Watch(
        self, request: pb.WatchRequest, context: grpc.aio.ServicerContext[pb.WatchRequest, pb.WatchEvent]
    ) -> AsyncIterator[pb.WatchEvent]:
        """See monitor.proto."""
        at_most = WATCHERS if context.peer().startswith("unix:") else FAR_WATCHERS
        try:
            async with aclosing(self._watching.watch(request.instance, request.after, at_most)) as events:
                async for event in events:
                    yield event_to_wire(event)
        except DecafError as error:
            await refuse(context, error)
