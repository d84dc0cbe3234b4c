"""The daemon's end of the trainer link: one trainer at a time, over a Unix socket; ``private_sockets`` says whose."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from struct import Struct

from decaf_node import link
from decaf_node.daemon.durable import private_sockets
from decaf_node.errors import BadData

log = logging.getLogger(__name__)

FIRST_MESSAGE_SECONDS = 10.0
CREDENTIALS = Struct("3i")  # struct ucred: process, user, group


class LinkServer:
    """Listens for the trainer. ``heard`` gets every message in turn; ``lost`` why a trainer that was heard is gone."""

    def __init__(
        self,
        path: Path,
        limit_bytes: int,
        welcome: link.Welcome,
        heard: Callable[[link.Message], Awaitable[None]],
        lost: Callable[[str], Awaitable[None]],
    ) -> None:
        self._path = path
        self._limit = limit_bytes
        self._welcome = welcome
        self._heard = heard
        self._lost = lost
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.of_another_user = False  # the trainer that is connected, or was last

    async def start(self) -> None:
        """Listen. Whatever lies at the path is of an earlier daemon: the state folder is locked."""
        self._path.unlink(missing_ok=True)
        with private_sockets(self._path.parent):
            self._server = await asyncio.start_unix_server(self._accept, self._path, limit=self._limit)

    def send(self, message: link.Message) -> bool:
        """Send the trainer a message; False if there is none (it will be told all it needs when it starts again)."""
        if self._writer is None or self._writer.is_closing():
            return False
        self._writer.write(link.encode(message))
        return True

    async def end(self, seconds: float) -> None:
        """Read what a trainer that has ended said last, for at most ``seconds``; then nobody is connected."""
        if self._serving:
            await asyncio.wait(self._serving, timeout=seconds)
        if self._writer is not None:
            self._writer.close()
        if self._serving:
            await asyncio.wait(self._serving)

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            if self._writer is not None:
                log.warning("A second trainer has connected and was turned away; one node has one trainer.")
                return
            self._writer = writer
            self.of_another_user = _user_of(writer) != os.geteuid()
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the daemon stops; asyncio's own callback would print a traceback
        finally:
            if self._writer is writer:
                self._writer = None
            self._serving.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await asyncio.wait_for(self._read(reader), FIRST_MESSAGE_SECONDS)
            if not isinstance(first, link.TrainerConnected) or first.version != link.VERSION:
                raise BadData("link.other-version", "The trainer speaks another version of the link; update it.")
        except (BadData, EOFError, ConnectionError, asyncio.TimeoutError) as error:
            log.warning("A trainer has connected but not said who it is: %s", error)
            return
        writer.write(link.encode(self._welcome))
        await self._heard(first)
        await self._lost(await self._listen(reader))

    async def _listen(self, reader: asyncio.StreamReader) -> str:
        """Return why the trainer is not heard any more."""
        try:
            while True:
                await self._heard(await self._read(reader))
        except BadData as error:
            return error.message
        except (EOFError, ConnectionError):
            return "the trainer is gone"

    async def _read(self, reader: asyncio.StreamReader) -> link.Message:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            raise BadData(
                "link.too-long",
                f"The trainer sent a message of more than {self._limit} bytes (limits.link_bytes).",
            ) from None
        return link.decode(line)


def _user_of(writer: asyncio.StreamWriter) -> int:
    """Return the user ID at the other end of a Unix socket, see unix(7)."""
    credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(credentials)[1])
