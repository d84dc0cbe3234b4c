"""What to compare the mesh with: each node alone, and one trainer that holds everything."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from decaf_node.cli.demo.newsrooms import Layout
from decaf_node.cli.demo.processes import last_words, start_python, stop_all
from decaf_node.cli.demo.sight import Point

POLL_SECONDS = 0.5


class Baselines:
    """The curves of the baselines, by the settings they were trained with; they grow while they are trained."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._curves: dict[Path, list[Point]] = {room.alone: [] for room in layout.newsrooms}
        self._curves[layout.one_place] = []

    @property
    def alone(self) -> dict[str, list[Point]]:
        """By the names of the newsrooms."""
        return {room.name: self._curves[room.alone] for room in self._layout.newsrooms}

    @property
    def one_place(self) -> list[Point]:
        return self._curves[self._layout.one_place]

    @property
    def done(self) -> float:
        """The share of the work that is over; one place takes as many steps as all newsrooms together."""
        nodes = len(self._layout.newsrooms)
        rounds = sum(curve[-1].round for curve in self.alone.values() if curve)
        rounds += nodes * (self.one_place[-1].round if self.one_place else 0)
        return rounds / (2 * nodes * self._layout.rounds)

    def train(self, log: Path, show: Callable[[Baselines], None]) -> None:
        """Train everything, in two processes of one thread each, and ``show`` now and then.

        Raises the error of a process that ends before its work is done.
        """
        groups = [[room.alone for room in self._layout.newsrooms], [self._layout.one_place]]
        processes: list[subprocess.Popen[str]] = []
        with ThreadPoolExecutor(len(groups)) as pool:
            try:
                processes.extend(_start(group, log) for group in groups)
                readers = [pool.submit(self._read, process, log) for process in processes]
                waiting = set(readers)
                while waiting:
                    done, waiting = wait(readers, POLL_SECONDS, FIRST_EXCEPTION)
                    for reader in done:
                        reader.result()
                    show(self)
            finally:
                stop_all(processes)

    def _read(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            self._curves[Path(said["config"])].append(Point(said["round"], said["accuracy"], said["loss"]))
        if code := process.wait():
            raise last_words(log, code)


def _start(configs: Iterable[Path], log: Path) -> subprocess.Popen[str]:
    return start_python(["-m", "decaf_node.training.alone", *map(str, configs)], log, stdout=subprocess.PIPE)
