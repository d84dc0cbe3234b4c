"""The trainer's end of the link to the daemon: send blocks, poll does not, wait does.

Imports nothing heavy, so that a trainer can say who it is before it loads torch.
"""

from __future__ import annotations

import os
import select
import socket
import time
from pathlib import Path
from typing import Protocol

from decaf_node.errors import BadData, DaemonUnreachable, DecafError
from decaf_node.link import FromTrainer, Message, TrainerConnected, TrainerFailed, Welcome, decode, encode

LINE_LIMIT_BYTES = 16 * 1024 * 1024  # the settings come in the first message, so its own limit is a fixed one
READ_BYTES = 64 * 1024
CONNECT_SECONDS = 10.0


class DaemonGone(Exception):
    """The daemon has closed the link: nobody is left to work for."""


class Link(Protocol):
    """What a training session speaks through; ``alone.py`` has one without a daemon."""

    def send(self, message: FromTrainer) -> None:
        """Send ``message``. Raises DaemonGone."""

    def poll(self) -> Message | None:
        """Return the next message if one is here. Raises DaemonGone once all that came before the end is read."""

    def wait(self) -> Message:
        """Return the next message, however long it takes. Raises DaemonGone."""

    def wait_for(self, seconds: float) -> Message | None:
        """Return the next message, or None if there is none within so many seconds. Raises DaemonGone."""

    def close(self) -> None:
        """Hang up."""


class DaemonLink:
    """A ``Link`` over a connected stream socket."""

    def __init__(self, stream: socket.socket, limit_bytes: int = LINE_LIMIT_BYTES) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._searched = 0

    def send(self, message: FromTrainer) -> None:
        try:
            self._stream.sendall(encode(message))
        except (BrokenPipeError, ConnectionResetError):
            raise DaemonGone from None

    def poll(self) -> Message | None:
        return self.wait_for(0.0)

    def wait_for(self, seconds: float) -> Message | None:
        end = time.monotonic() + seconds
        while (message := self._take()) is None:
            if not select.select([self._stream], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            self._read()
        return message

    def wait(self) -> Message:
        while (message := self._take()) is None:
            self._read()
        return message

    def close(self) -> None:
        self._stream.close()

    def _read(self) -> None:
        try:
            block = self._stream.recv(READ_BYTES)
        except ConnectionResetError:
            block = b""
        if not block:
            raise DaemonGone
        self._buffer += block

    def _take(self) -> Message | None:
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            if self._searched > self._limit_bytes:
                raise BadData("link.too-long", f"The daemon sent a line of more than {self._limit_bytes} bytes.")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return decode(line)


def connect(path: Path) -> DaemonLink:
    """Return a link to the daemon that listens at ``path``. Raises DaemonUnreachable."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(CONNECT_SECONDS)
    try:
        stream.connect(str(path))
    except OSError as error:
        stream.close()
        raise DaemonUnreachable(
            "training.no-daemon",
            f"No daemon listens for a trainer at {path} ({error.strerror or error}); start decaf-node run first.",
        ) from None
    stream.settimeout(None)
    return DaemonLink(stream)


def shake_hands(link: Link) -> Welcome:
    """Say who we are and return what the daemon answers. Raises BadData or DaemonGone."""
    link.send(TrainerConnected(os.getpid()))
    welcome = link.wait()
    if not isinstance(welcome, Welcome):
        raise BadData("link.no-welcome", f"The daemon began with {type(welcome).__name__} instead of Welcome.")
    return welcome


def tell_failure(link: Link, error: DecafError, fatal: bool) -> None:
    """Say the trainer's last words, if anyone is left to hear them."""
    try:
        link.send(TrainerFailed(error.reason, error.message, error.exit_code, fatal))
    except DaemonGone:
        return
