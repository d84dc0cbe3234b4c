"""The terminal while ``decaf-node top`` has it: a screen of its own, keys, resizes, and all as before at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

LEAST_SECONDS = 0.2  # between two pictures
QUIT_KEYS = b"qQ"
ENDING = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
GONE = 128 + signal.SIGHUP  # what a shell reports of a program whose terminal has gone
CONTROL_CHARACTERS = 6  # where termios keeps them
USUAL_SIZE = (80, 24)


class Window:
    """Draws what ``lines`` returns for the console as large as it is, when woken, until a key or a signal ends it."""

    def __init__(self, console: Console, lines: Callable[[Console], Sequence[Text]]) -> None:
        self._console = console
        self._lines = lines
        self._woken = asyncio.Event()
        self._end: int | None = None

    def wake(self) -> None:
        """Something is new."""
        self._woken.set()

    async def run(self) -> int:
        """Return 0 when the user has quit, else 128 and the number of the signal."""
        loop = asyncio.get_running_loop()
        for number in ENDING:
            loop.add_signal_handler(number, self.stop, 128 + number)
        loop.add_signal_handler(signal.SIGWINCH, self.wake)
        with contextlib.ExitStack() as stack:
            if sys.stdin.isatty():
                stack.enter_context(_keys_at_once(sys.stdin.fileno()))
                loop.add_reader(sys.stdin.fileno(), self._key)
                stack.callback(loop.remove_reader, sys.stdin.fileno())
            with contextlib.suppress(OSError), self._console.screen():  # which the terminal may be gone for
                await self._draw_until_the_end()
        return GONE if self._end is None else self._end

    async def _draw_until_the_end(self) -> None:
        while self._end is None:
            self._woken.clear()
            self._draw()
            await asyncio.sleep(LEAST_SECONDS)
            await self._woken.wait()

    def _draw(self) -> None:
        self._console.size = _size()
        lines = Text("\n").join(self._lines(self._console))
        lines.no_wrap, lines.overflow = True, "crop" if self._console.options.ascii_only else "ellipsis"
        self._console.update_screen(lines)

    def _key(self) -> None:
        try:
            typed = os.read(sys.stdin.fileno(), 64)
        except OSError:
            typed = b""
        if not typed:
            self.stop(GONE)
        elif any(key in QUIT_KEYS for key in typed):
            self.stop(0)

    def stop(self, code: int) -> None:
        """End it with this exit code."""
        self._end = code if self._end is None else self._end
        self.wake()


@contextmanager
def _keys_at_once(terminal: int) -> Iterator[None]:
    """Read keys without Enter and without showing them. Ctrl-Z would leave the shell with our screen, so it is off."""
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    now = termios.tcgetattr(terminal)
    now[CONTROL_CHARACTERS][termios.VSUSP] = b"\0"
    termios.tcsetattr(terminal, termios.TCSANOW, now)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _size() -> tuple[int, int]:
    """Ask the terminal itself: what the environment says is not kept up."""
    size = os.get_terminal_size(sys.stdout.fileno())
    return (size.columns or USUAL_SIZE[0], size.lines or USUAL_SIZE[1])
