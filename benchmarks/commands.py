"""What people feel: `decaf-node --help` and `status`, a daemon's start, and what it holds while nothing happens.

- **commands**: each is started in turn with `python -c pass`, the least that any command in Python can cost, against a
  daemon with a scripted trainer: milliseconds of the processor, which a busy machine does not lengthen much, and on the
  wall.
- **daemon**: from the start of the process until it tells systemd that it is ready, without a model, and its resident
  memory then.

Medians with the middle half of the runs. Prints tables and writes benchmarks/results/commands.json.

    python -m benchmarks.commands [--runs 15]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import machine, resident
from tests.daemon.processes import PATIENCE, Daemon, mesh

RESULTS = Path(__file__).parent / "results" / "commands.json"
PROGRAM = [sys.executable, "-m", "decaf_node.cli.main"]


@dataclass
class Cost:
    """Of each run. processor, wall: milliseconds."""

    processor: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def add(self, command: list[str]) -> None:
        """Run a command once more."""
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - our own words, no shell
        _, status, usage = os.wait4(process.pid, 0)
        self.wall.append(1000 * (time.perf_counter() - start))
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, command
        self.processor.append(1000 * (usage.ru_utime + usage.ru_stime))


def started(daemon: Daemon) -> tuple[float, float]:
    """Start a daemon that has run before; return after how many milliseconds it was ready, and what it held (MB)."""
    daemon.start().until(lambda status: status.round >= 1)
    daemon.end()
    place = daemon.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(place))
        told.settimeout(PATIENCE)
        daemon.environ["NOTIFY_SOCKET"] = str(place)
        start = time.perf_counter()
        daemon.start()
        while b"READY=1" not in told.recv(4096):
            pass
        ready = 1000 * (time.perf_counter() - start)
    assert daemon.process is not None
    held = resident(daemon.process.pid) / 1e6
    daemon.end()
    return ready, held


def in_middle(values: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low": low, "high": high}


def said(row: dict[str, float], unit: str) -> str:
    return f"{row['median']:6.0f} {unit} ({row['low']:.0f} to {row['high']:.0f})"


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    with mesh() as make:
        daemon = make("a").start()
        daemon.until(lambda status: status.round >= 1)
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "decaf-node --help": [*PROGRAM, "--help"],
            "decaf-node status": [*PROGRAM, "status", "--runtime", str(daemon.runtime)],
        }
        costs = {name: Cost() for name in commands}
        for _ in range(runs):
            for name, command in commands.items():
                costs[name].add(command)
        daemon.end()
        starts = [started(make(f"d{number}")) for number in range(runs)]
    rows = {
        name: {"processor_ms": in_middle(cost.processor), "wall_ms": in_middle(cost.wall)}
        for name, cost in costs.items()
    }
    ready, held = in_middle([ready for ready, _ in starts]), in_middle([held for _, held in starts])
    for name, row in rows.items():
        print(f"{name:20} {said(row['processor_ms'], 'ms')} of the processor, {said(row['wall_ms'], 'ms')} in all")
    print(f"{'a daemon is ready':20} {said(ready, 'ms')} after its start, and holds {said(held, 'MB')}")
    document = {"machine": machine(), "runs": runs, "commands": rows, "ready_ms": ready, "resident_mb": held}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
