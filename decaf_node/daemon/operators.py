"""Operators on other devices: a TCP listener with mutual TLS, off by default. Members read, and only operators act.

An operator is a member whose node ID stands in the settings of this node: nobody else, the authority neither, can make
one. What comes over the Unix socket is not asked: its file permissions say who may.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import grpc

from decaf_node.daemon.addresses import split
from decaf_node.daemon.listening import SERVER_OPTIONS
from decaf_node.daemon.node_id import read_node, short
from decaf_node.daemon.pace import Pace
from decaf_node.daemon.prompt import handler_like, pour
from decaf_node.daemon.rpc_errors import refuse
from decaf_node.daemon.security import MutualTls
from decaf_node.errors import BadSettings, DecafError, NotAllowed, TryAgain, UsageError
from decaf_node.settings import Settings

READS = ("/decaf_node.v1.Monitor/", "/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
CONNECTIONS_AT_MOST = 16
CALLS_AT_MOST = 32
STREAMS_AT_MOST = 24  # of those calls: the rest is kept for plain ones
STREAMS_A_CALLER = 12
STREAM_CHECK_SECONDS = 5.0  # who is put out while he watches sees no more after so long
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
        self._streams: Counter[str] = Counter()

    def let_act(self, may_act: frozenset[str]) -> None:
        """These may act from now on, and no others."""
        self._may_act = may_act

    def check(self, context: grpc.aio.ServicerContext[Any, Any], method: str) -> str:
        """Return the caller, who may call ``method``.

        Raises NotAllowed ``monitor.not-operator``, TryAgain ``mesh.too-many-calls`` and what ``caller`` does.
        """
        caller = self._tls.caller(context)
        self._pace.take(caller)
        if not method.startswith(READS) and caller not in self._may_act:
            raise NotAllowed(
                "monitor.not-operator",
                f"This device ({short(caller)}) may look, but not act; add its node ID to monitor.operators in the "
                "settings there.",
            )
        return caller

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
        # of grpc.aio, whatever its types say
        act: Any = handler.unary_unary or handler.unary_stream or handler.stream_stream
        assert act is not None, "no service here answers a stream once"

        async def checked(request: Any, context: Any) -> Any:
            try:
                caller = self.check(context, method)
                if handler.response_streaming:
                    return await self._streamed(caller, context, pour(act, request, context))
            except DecafError as error:
                await refuse(context, error)
            return await act(request, context)

        return handler_like(handler, checked, handler.request_streaming)

    async def _streamed(self, caller: str, context: Any, work: Coroutine[Any, Any, None]) -> None:
        """Do the work of a stream, as long as its caller is a member. Raises TryAgain ``monitor.too-many-streams``."""
        if self._streams[caller] >= STREAMS_A_CALLER or self._streams.total() >= STREAMS_AT_MOST:
            work.close()
            raise TryAgain(
                "monitor.too-many-streams", "Too much is watched here from other devices already; end some of it."
            )
        self._streams[caller] += 1
        pouring = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({pouring}, timeout=STREAM_CHECK_SECONDS))[0]:
                self._tls.caller(context)
            pouring.result()
        finally:
            pouring.cancel()
            self._streams[caller] -= 1
            self._streams += Counter()  # forgets who has none


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
