"""``grpc.health.v1``, reflection, channelz. Live: the loop answers. Ready: the model is loaded, others can connect.

The services named in ``LIVE`` are served as long as the daemon answers; that of ``READY`` while the node can mix.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc_channelz.v1.channelz import add_channelz_servicer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import enable_server_reflection

LIVE = ("", "decaf_node.v1.Monitor", "decaf_node.v1.Control")
READY = "decaf_node.v1.Mesh"
LOOK_SECONDS = 0.5
Answer = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers by what ``ready`` says at that moment.

    The library's own servicer holds a lock while it writes, so one watcher that never reads would hold up all others.
    """

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready

    async def Check(self, request: Any, context: Any) -> Any:
        """See ``grpc.health.v1``."""
        status = self._status(request.service)
        if status == Answer.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "No service of this name is here.")
        return Answer(status=status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """See ``grpc.health.v1``."""
        before = None
        while True:
            now = self._status(request.service)
            if now != before:
                yield Answer(status=now)
                before = now
            await asyncio.sleep(LOOK_SECONDS)

    def _status(self, service: str) -> Any:
        if service == READY:
            return Answer.SERVING if self._ready() else Answer.NOT_SERVING
        return Answer.SERVING if service in LIVE else Answer.SERVICE_UNKNOWN


def serve_health(server: grpc.aio.Server, health: Health) -> None:
    """Serve it, and reflection."""
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    enable_server_reflection((*LIVE[1:], HEALTH, REFLECTION), server)


def serve_channelz(server: grpc.aio.Server) -> None:
    """Serve what gRPC knows of its own connections."""
    add_channelz_servicer(server)
