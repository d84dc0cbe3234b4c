"""Operators on other devices: a TCP listener with mutual TLS, off by default. Members read, and only operators act.

An operator is a member whose node ID stands in the settings of this node: nobody else, the authority neither, can make
one. What comes over the Unix socket is not asked: its file permissions say who may.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from decaf_node.daemon.addresses import split
from decaf_node.daemon.listening import SERVER_OPTIONS
from decaf_node.daemon.node_id import read_node, short
from decaf_node.daemon.pace import Pace
from decaf_node.daemon.rpc_errors import refuse
from decaf_node.daemon.security import MutualTls
from decaf_node.errors import BadSettings, DecafError, NotAllowed, UsageError
from decaf_node.settings import Settings

READS = "/decaf_node.v1.Monitor/"
CONNECTIONS_AT_MOST = 16
CALLS_AT_MOST = 32
REQUEST_LIMIT_BYTES = 64 * 1024  # a request is a few words; an answer may be large
OPTIONS: list[tuple[str, Any]] = [
    *((name, value) for name, value in SERVER_OPTIONS if "message_length" not in name),
    ("grpc.max_receive_message_length", REQUEST_LIMIT_BYTES),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS_AT_MOST),
]


class Operators(grpc.aio.ServerInterceptor):
    """Lets members read, and those in ``may_act`` (node IDs) do what the local socket offers."""

    def __init__(self, tls: MutualTls, may_act: frozenset[str], pace: Pace) -> None:
        self._tls = tls
        self._may_act = may_act
        self._pace = pace

    def check(self, context: grpc.aio.ServicerContext[Any, Any], method: str) -> None:
        """Raise unless the caller may call ``method``: NotAllowed ``monitor.not-operator`` and what ``caller`` raises.

        Raises TryAgain ``mesh.too-many-calls`` too.
        """
        caller = self._tls.caller(context)
        self._pace.take(caller)
        if not method.startswith(READS) and caller not in self._may_act:
            raise NotAllowed(
                "monitor.not-operator",
                f"This device ({short(caller)}) may look, but not act; add its node ID to monitor.operators in the "
                "settings there.",
            )

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Have the caller checked before anything is done, whichever method it is."""
        handler = await continuation(details)
        if handler is None:
            return handler
        method = details.method
        act: Any = handler.unary_unary  # of grpc.aio, whatever its types say
        assert act is not None, "both services have plain calls only"

        async def checked(request: Any, context: Any) -> Any:
            try:
                self.check(context, method)
            except DecafError as error:
                await refuse(context, error)
            return await act(request, context)

        return grpc.unary_unary_rpc_method_handler(
            checked, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )


def operators_of(settings: Settings, plaintext: bool) -> frozenset[str]:
    """Return who may act over TCP. Raises BadSettings ``monitor.bad-address``, ``-operator`` or ``monitor.no-tls``."""
    monitor = settings.monitor
    try:
        operators = frozenset(read_node(typed) for typed in monitor.operators)
    except UsageError:
        raise BadSettings("monitor.bad-operator", "monitor.operators holds what is no node ID.") from None
    any_port = re.sub(r":0$", ":1", monitor.listen)  # 0 takes a free one
    if monitor.listen and split(any_port) is None:
        raise BadSettings(
            "monitor.bad-address", f"monitor.listen {monitor.listen!r} is no address; write it as host:port."
        )
    if monitor.listen and plaintext:
        raise BadSettings("monitor.no-tls", "monitor.listen needs TLS, and this node runs in plaintext; take it out.")
    return operators
