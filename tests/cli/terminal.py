"""A real pseudo-terminal with a program in it, and the screen that a person would see."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pyte

from tests.cli.command import PROGRAM
from tests.daemon.processes import PATIENCE

ENTERED, LEFT = b"\x1b[?1049h", b"\x1b[?1049l"  # the screen of its own
CURSOR_HIDDEN, CURSOR_SHOWN = b"\x1b[?25l", b"\x1b[?25h"


class Terminal:
    """Runs ``decaf-node arguments`` in a terminal of that size; to be used in a ``with``."""

    def __init__(self, *arguments: str | Path, columns: int = 80, lines: int = 24, **environment: str) -> None:
        self.master, self.slave = pty.openpty()
        self.written = b""
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(columns, lines)
        self.modes: list[Any] = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *PROGRAM, *map(str, arguments)],  # Ctrl-C reaches it; no code of ours after a fork
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parents[2])} | environment,
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for end in {self.master, self.slave}:
            os.close(end)

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without spaces at the ends."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def size(self) -> tuple[int, int]:
        return self._screen.columns, self._screen.lines

    def resize(self, columns: int, lines: int) -> None:
        """Change the size as a window manager does."""
        self._screen.resize(lines, columns)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def hang_up(self) -> None:
        """Close the terminal, as when a connection by SSH breaks."""
        for end in (self.master, self.slave):
            os.close(end)
        self.master = self.slave = os.open(os.devnull, os.O_RDWR)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        """Read until the screen is as wanted; return it."""
        end = time.monotonic() + PATIENCE
        while not holds(self.lines):
            assert time.monotonic() < end, "the screen never came so far:\n" + "\n".join(self.lines)
            self._read(0.1)
        return self.lines

    def wait(self) -> int:
        """Read what comes until the program ends; return its exit code."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end, "it never ended:\n" + "\n".join(self.lines)
            self._read(0.1)
        while self._read(0.0):
            pass
        return self.process.returncode

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            piece = os.read(self.master, 65536)
            self.written += piece
            self._stream.feed(piece)
        return bool(ready)
