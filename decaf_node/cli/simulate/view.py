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
    """Counts the seeds that are done; to be used in a ``with``."""

    def __init__(self, console: Console, seeds: int) -> None:
        self._console = console
        self._seeds = seeds
        self._done = self._steps = self._violations = 0
        self._virtual_seconds = 0.0
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
        self._bar.update(self._task, completed=self._done, description=self.line)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._said_at >= LINE_SECONDS:
            self._console.print(Text(self.line))
            self._said_at = now

    @property
    def line(self) -> str:
        """Return how far it is: seeds, virtual hours, steps a second, violations."""
        rate = self._steps / max(1e-3, time.monotonic() - self._started)
        return (
            f"{self._done}/{self._seeds} seeds, {self._virtual_seconds / 3600:,.1f} virtual h, {rate:,.0f} steps/s, "
            f"{self._violations} violations"
        )
