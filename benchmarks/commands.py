"""What the commands that people type cost: processor time of `decaf-node --help` and of `status`.

Each is started in turn with `python -c pass`, the least that any command in Python can cost, against a daemon with a
scripted trainer. Medians with the middle half of the runs, in milliseconds of the processor, which a busy machine does
not lengthen much. Prints a table and writes benchmarks/results/commands.json.

    python -m benchmarks.commands [--runs 15]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import machine
from tests.daemon.processes import mesh

RESULTS = Path(__file__).parent / "results" / "commands.json"
PROGRAM = [sys.executable, "-m", "decaf_node.cli.main"]


def cost(command: list[str]) -> float:
    """Return the milliseconds of the processor that a command takes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - our own words, no shell
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return 1000 * (usage.ru_utime + usage.ru_stime)


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
        costs: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, command in commands.items():
                costs[name].append(cost(command))
    rows = {}
    for name, times in costs.items():
        low, median, high = statistics.quantiles(times, n=4)
        rows[name] = {"median_ms": median, "low_ms": low, "high_ms": high}
        print(f"{name:20} {median:6.0f} ms ({low:.0f} to {high:.0f})")
    RESULTS.write_text(json.dumps({"machine": machine(), "runs": runs, "commands": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
