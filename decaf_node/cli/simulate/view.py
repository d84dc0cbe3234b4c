"""What the simulation shows while it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from decaf_node.sim.run import Outcome

LINE_SECONDS = 10.0  # between two lines where there is no terminal


class View:
    """Counts the seeds that are done, and how far the others are; to be used in a ``with``.

    length: virtual seconds of a seed
    """

    def __init__(self, console: Console, seeds: int, length: float) -> None:
        self._console = console
        self._seeds = seeds
        self._length = length
        self._done = self._steps = self._violations = 0
        self._virtual_seconds = 0.0
        self._told_seconds, self._told_steps = 0.0, 0  # seeds that are not done among them
        self._started = self._said_at = time.monotonic()
        self._bar = Progress(
            BarColumn(14), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
        )
        self._task = self._bar.add_task(self.line, total=seeds)

    def __enter__(self) -> View:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def add(self, outcome: Outcome) -> None:
        """Count a seed that is done."""
        self._done += 1
        self._steps += outcome.steps
        self._violations += outcome.finding is not None
        self._virtual_seconds += outcome.virtual_seconds
        self._show()

    def told(self, virtual_seconds: float, steps: int) -> None:
        """So much was played by now, of all seeds."""
        self._told_seconds, self._told_steps = virtual_seconds, steps
        self._show()

    def _show(self) -> None:
        completed = max(self._done, min(self._seeds, self._told_seconds / self._length))
        self._bar.update(self._task, completed=completed, description=self.line)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._said_at >= LINE_SECONDS:
            self._console.print(Text(self.line))
            self._said_at = now

    @property
    def line(self) -> str:
        """Return how far it is: seeds, virtual hours, steps a second, violations."""
        seconds = max(self._virtual_seconds, self._told_seconds)
        rate = max(self._steps, self._told_steps) / max(1e-3, time.monotonic() - self._started)
        return (
            f"{self._done}/{self._seeds} seeds, {seconds / 3600:,.1f} virtual h, {rate:,.0f} steps/s, "
            f"{self._violations} violations"
        )
