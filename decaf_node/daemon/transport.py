"""One bidirectional gRPC stream, the same from both ends: read, write, end. Library errors become TryAgain here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Protocol, TypeAlias

import grpc

from decaf_node.daemon.logs import printable
from decaf_node.errors import TryAgain
from decaf_node.v1 import mesh_pb2 as pb

Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.Frame, pb.Frame]"
Context: TypeAlias = "grpc.aio.ServicerContext[pb.Frame, pb.Frame]"


class Transport(Protocol):
    """What an edge needs of a stream. ``read`` and ``write`` raise TryAgain (``edge.broken``) when it has broken."""

    async def read(self) -> pb.Frame | None:
        """Return the next frame; None when the other end has ended the stream."""

    async def write(self, frame: pb.Frame) -> None:
        """Send a frame; returns when there is room for another."""

    async def end(self) -> None:
        """Say that nothing more comes from here. What was written before still arrives."""


class ClientTransport:
    """The end that opened the stream."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def read(self) -> pb.Frame | None:
        """See ``Transport``."""
        with _errors():
            frame = await self._call.read()
            return frame if isinstance(frame, pb.Frame) else None

    async def write(self, frame: pb.Frame) -> None:
        """See ``Transport``."""
        with _errors():
            await self._call.write(frame)

    async def end(self) -> None:
        """See ``Transport``."""
        with contextlib.suppress(TryAgain), _errors():
            await self._call.done_writing()


class ServerTransport:
    """The end that accepted the stream. It ends when the handler of the call returns, so ``end`` has nothing to do."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def read(self) -> pb.Frame | None:
        """See ``Transport``."""
        with _errors():
            frame = await self._context.read()
            return frame if isinstance(frame, pb.Frame) else None

    async def write(self, frame: pb.Frame) -> None:
        """See ``Transport``."""
        with _errors():
            await self._context.write(frame)

    async def end(self) -> None:
        """See ``Transport``."""


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _broken(error.details() or error.code().name) from None
    except (grpc.aio.BaseError, asyncio.InvalidStateError):  # what they say is of gRPC's own objects
        raise _broken("it is closed") from None


def _broken(problem: str) -> TryAgain:
    return TryAgain("edge.broken", f"the stream broke ({printable(problem)})")
