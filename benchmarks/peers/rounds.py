"""What a node does, whichever framework it uses: it holds an adapter, trains, and says what it holds after the round.

Training adds a constant and ends when the benchmark says so, at all nodes at once. Scripts for the environments of
other frameworks import it, so it needs no more than NumPy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Arrays = list[np.ndarray[Any, np.dtype[np.float32]]]

ROUNDS = 3  # that are looked at: the first is no steady state
TRAININGS = ROUNDS + 1  # the last only ends the round before
NODES = ("a", "b", "c", "d")
SERVER = "server"  # one more machine, for those who need it
ADDRESSES = {host: f"10.77.0.{number}" for number, host in enumerate((*NODES, SERVER), 1)}
RANK, WIDTH = 16, 4096  # of each A and B
LEARNED = {node: float(number) for number, node in enumerate(NODES, 1)}  # what each adds in a round
MIB = 1024 * 1024


def adapter(mib: int) -> Arrays:
    """Return the arrays A (rank, width) and B (width, rank) of so many layers that all are ``mib`` MiB."""
    layers = mib * MIB // (2 * 4 * RANK * WIDTH)
    draw = np.random.default_rng(0)
    shapes = ((RANK, WIDTH), (WIDTH, RANK)) * layers
    return [draw.standard_normal(shape, dtype=np.float32) for shape in shapes]


def ends_of(arrays: Arrays) -> list[float]:
    """Return the first number and the last."""
    return [float(arrays[0].flat[0]), float(arrays[-1].flat[-1])]


class Rounds:
    """The rounds of one node, marked by files in a folder that the benchmark watches."""

    def __init__(self, folder: Path, node: str) -> None:
        self.folder = folder
        self.node = node
        self.round = 0
        self.held = True

    def train(self, arrays: Arrays) -> Arrays:
        """Return what has been learned, when all nodes have come so far."""
        self.round += 1
        learned = [array + np.float32(LEARNED[self.node]) for array in arrays]
        put(mark(self.folder, "trained", self.round, self.node), "")
        wait_for(mark(self.folder, "go", self.round))
        self.held = False
        return learned

    def holds(self, arrays: Arrays) -> None:
        """Say when it has the aggregate, and what that is; of several times in a round the first counts."""
        if not self.held:
            now = time.monotonic()
            self.held = True
            put(mark(self.folder, "holds", self.round, self.node), json.dumps([now, *ends_of(arrays)]))


def mark(folder: Path, what: str, round: int, node: str = "all") -> Path:
    return folder / f"{what}-{round}-{node}"


def over(folder: Path) -> Path:
    """Return the mark of the end, which a script waits for."""
    return folder / "over"


def put(path: Path, text: str) -> None:
    """Write a file that is whole as soon as it is there."""
    staged = path.with_name(f".{path.name}")
    staged.write_text(text)
    staged.rename(path)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.005)


def until_over(folder: Path, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for the end; what fails before then ends the turn."""
    while not over(folder).exists():
        for process in processes:
            if process.poll():
                sys.exit(f"{process.args!r} has ended with exit code {process.returncode}.")
        time.sleep(0.1)


def play(module: str, serve: Callable[[Path, int, str], None]) -> None:
    """Run ``serve`` at each node: the script ``module`` starts itself there, as FOLDER MIB NODE."""
    folder, mib, *nodes = sys.argv[1:]
    if nodes:
        serve(Path(folder), int(mib), nodes[0])
    else:
        words = (sys.executable, "-m", module, folder, mib)
        until_over(Path(folder), [start(node, *words, node, cwd=Path(folder)) for node in NODES])


def start(host: str, *command: str, cwd: Path, **environ: str) -> subprocess.Popen[bytes]:
    """Run a command on one of the hosts."""
    return subprocess.Popen(["ip", "netns", "exec", host, *command], cwd=cwd, env=os.environ | environ)  # noqa: S603, S607
