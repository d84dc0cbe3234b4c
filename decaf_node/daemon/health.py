"""``grpc.health.v1`` and reflection. Live: the loop answers. Ready: the model is loaded, and other nodes can connect.

The service of a name in ``LIVE`` is served as long as the daemon answers; that of ``READY`` while the node can mix.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
from grpc_channelz.v1.channelz import add_channelz_servicer
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import enable_server_reflection

LIVE = ("", "decaf_node.v1.Monitor", "decaf_node.v1.Control")
READY = "decaf_node.v1.Mesh"
LOOK_SECONDS = 0.5


class Health:
    """What ``grpc.health.v1`` says of this node. ready: looked at twice a second."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._servicer = aio.HealthServicer()

    async def run(self) -> None:
        """Keep it true."""
        for name in LIVE:
            await self._servicer.set(name, HealthCheckResponse.SERVING)
        before: bool | None = None
        while True:
            now = self._ready()
            if now is not before:
                await self._servicer.set(READY, HealthCheckResponse.SERVING if now else HealthCheckResponse.NOT_SERVING)
                before = now
            await asyncio.sleep(LOOK_SECONDS)

    def serve(self, server: grpc.aio.Server) -> None:
        """Serve it, and reflection."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        enable_server_reflection((*LIVE[1:], HEALTH, REFLECTION), server)


def serve_channelz(server: grpc.aio.Server) -> None:
    """Serve what gRPC knows of its own connections."""
    add_channelz_servicer(server)
