"""Our errors through gRPC and back: the sentence as details, reason ID and exit code beside it."""

from __future__ import annotations

import re
from typing import Any, NoReturn, cast

import grpc

from decaf_node.daemon.logs import printable
from decaf_node.errors import BadData, DecafError, NotAllowed, TryAgain, UsageError, from_exit_code

EXIT_CODES = re.compile(r"[0-9]{1,3}")
REASON, EXIT_CODE = "decaf-reason", "decaf-exit-code"
CODES = {
    UsageError.exit_code: grpc.StatusCode.INVALID_ARGUMENT,
    NotAllowed.exit_code: grpc.StatusCode.PERMISSION_DENIED,
    BadData.exit_code: grpc.StatusCode.INVALID_ARGUMENT,
    TryAgain.exit_code: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: DecafError) -> NoReturn:
    """End the call with ``error``."""
    trailing = ((REASON, error.reason), (EXIT_CODE, str(error.exit_code)))
    await context.abort(CODES.get(error.exit_code, grpc.StatusCode.FAILED_PRECONDITION), error.message, trailing)
    raise AssertionError("abort raises")


def error_of(failed: grpc.RpcError) -> DecafError | None:
    """Return the error that the other end has ended the call with; None if it is none of ours."""
    trailing = cast("tuple[tuple[str, str], ...]", failed.trailing_metadata() or ())
    said = {key: str(value) for key, value in trailing}
    if REASON not in said or EXIT_CODES.fullmatch(said.get(EXIT_CODE, "")) is None:
        return None
    return from_exit_code(int(said[EXIT_CODE]), printable(said[REASON]), printable(failed.details() or ""))
