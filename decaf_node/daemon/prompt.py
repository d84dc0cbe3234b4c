"""Calls that are begun and never said to their end keep nobody out: the caller is checked, the request has a deadline.

gRPC waits for the request of a plain call for ever, before our code is asked at all. To it such a call looks like a
stream of one request, so it is served as one here, with a deadline.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc

from decaf_node.errors import DecafError

REQUEST_SECONDS = 3.0  # a request is one small message

Admit = Callable[[Any], None]


def anyone(context: Any) -> None:
    """Let every caller be heard."""


async def pour(act: Any, request: Any, context: Any) -> None:
    """Write all that ``act`` answers: it yields it, or writes it itself. gRPC waits for a caller who does not read."""
    answers = act(request, context)
    if not inspect.isasyncgen(answers):
        await answers
        return
    async with aclosing(answers):
        async for answer in answers:
            await context.write(answer)


_MAKERS: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def handler_like(
    handler: grpc.RpcMethodHandler[Any, Any], serve: Any, request_streaming: bool
) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler of the same messages that does ``serve``. request_streaming: gRPC hands it a stream of them."""
    made: grpc.RpcMethodHandler[Any, Any] = _MAKERS[request_streaming, handler.response_streaming](
        serve, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
    )
    return made


class Prompt(grpc.aio.ServerInterceptor):
    """Gives the request of each plain call ``seconds`` to come. admit: raises for whom is not listened to at all."""

    def __init__(self, admit: Admit = anyone, seconds: float = REQUEST_SECONDS) -> None:
        self._admit = admit
        self._seconds = seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Serve a call of one request as a stream of one."""
        handler = await continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        act: Any = handler.unary_unary or handler.unary_stream  # of grpc.aio, whatever its types say

        async def in_time(requests: AsyncIterator[Any], context: Any) -> Any:
            try:
                self._admit(context)
                request = await asyncio.wait_for(anext(requests), self._seconds)
            except DecafError as error:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
            except (asyncio.TimeoutError, StopAsyncIteration):
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "The request has not come in time.")
            return await (pour(act, request, context) if handler.response_streaming else act(request, context))

        return handler_like(handler, in_time, request_streaming=True)
