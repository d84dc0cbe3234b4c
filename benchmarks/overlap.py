"""How much of its time a trainer does not spend in training steps: with overlap, and without.

Five nodes, each the neighbour of all others, with adapters of a 7B-class model's shapes (``seven_b``; 42 million
numbers, 168 MB in float32) and links of 100 Mbit/s: all that a node sends to its four neighbours passes
``limits.upload_bytes_per_second``. One node really trains, on the processor; the steps of the others are pauses. The
figure is the part of the time, over whole rounds, in which that node's trainer is in no step: it writes, reads and
mixes snapshots, waits, and does what transformers' Trainer does between steps. A server that waits for all, as FedAvg
does, costs at least what ``overlap = false`` does: as many bytes each way at its end, and more.

Prints a table and writes benchmarks/results/overlap.json.

    python -m benchmarks.overlap [--layers 32] [--rounds 3] [--seconds 120]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from decaf_node.daemon.reports import RoundReport
from tests.daemon.processes import ROOT, Daemon, mesh

RESULTS = Path(__file__).parent / "results" / "overlap.json"
LINK_BYTES = 12_500_000  # a second: 100 Mbit/s
NEIGHBOURS = 4
PATIENCE = 3600.0
WIRES = ("float32", "int8")


@dataclass(frozen=True)
class Row:
    """Of so many whole rounds of the node that trains. idle: part of the time in no step; the others: means."""

    wire: str
    overlap: bool
    idle: float
    step_seconds: float
    round_seconds: float
    exchange_seconds: float
    mix_seconds: float
    sent_mb: float


def run(base: Path, wire: str, overlap: bool, layers: int, rounds: int, seconds: float) -> Row:
    """Let five nodes train and mix for so many rounds after the first in which all have mixed."""
    settings = {
        "model": {"path": str(base)},
        "training": {"trainer": "external"},
        "mesh": {"topology": "full"},
        "round": {"seconds": seconds, "steps": 0, "overlap": overlap, "wait_floor": PATIENCE, "wait_ceiling": PATIENCE},
        "mixing": {"wire": wire},
        "store": {"save_every": PATIENCE},
        "limits": {"upload_bytes_per_second": LINK_BYTES},
    }
    with mesh() as make, ExitStack() as scripts:
        first = make("n0", **settings).start()
        others = [joined(make(f"n{number}", first, **settings)) for number in range(1, 1 + NEIGHBOURS)]
        for daemon in others:
            scripts.enter_context(training(daemon, layers, idle=True))
        for daemon in others:  # before the one that trains takes the processor
            daemon.until(lambda status: status.trainer.state == "ready", PATIENCE)
        scripts.enter_context(training(first, layers, idle=False))
        begun = when(first, 1)
        ended = when(first, 1 + rounds)
        seen = full(first)[-rounds:]
        steps = [tuple(map(float, line.split())) for line in (first.folder / "steps").read_text().splitlines()]
    within = [(max(begun, start), min(ended, end)) for start, end in steps if start < ended and end > begun]
    busy = sum(end - start for start, end in within)
    return Row(
        wire,
        overlap,
        idle=1.0 - busy / (ended - begun),
        step_seconds=busy / len(within),
        round_seconds=(ended - begun) / rounds,
        exchange_seconds=fmean(round.exchange_seconds for round in seen),
        mix_seconds=fmean(round.mix_seconds for round in seen),
        sent_mb=fmean(round.sent_bytes for round in seen) / 1e6,
    )


def joined(daemon: Daemon) -> Daemon:
    daemon.start().until(lambda status: status.address != "")
    return daemon


@contextmanager
def training(daemon: Daemon, layers: int, idle: bool) -> Iterator[None]:
    """Run the daemon's script; neighbours give way to the one that trains."""
    command = [sys.executable, "-m", "benchmarks.seven_b", str(layers), str(daemon.folder)]
    socket = {"DECAF_NODE_TRAINER_SOCKET": str(daemon.runtime / "trainer.sock")}
    with (daemon.folder / "script.log").open("w") as log:
        script = subprocess.Popen(  # noqa: S603 - our own words, no shell
            ["nice", "-n", "5", *command, "--idle"] if idle else command,
            env={**os.environ, "PYTHONPATH": str(ROOT), **socket},
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        script.kill()
        script.wait()


def full(daemon: Daemon) -> list[RoundReport]:
    """Return the rounds in which it has mixed with all."""
    return [round for round in daemon.rounds() if len(round.edges) == NEIGHBOURS]


def when(daemon: Daemon, rounds: int) -> float:
    """Return when it had mixed with all so often (seconds, monotonic)."""
    while len(full(daemon)) < rounds:
        log = (daemon.folder / "script.log").read_text()
        assert "Traceback" not in log, log[-2000:]
        time.sleep(1.0)
    return time.monotonic()


def show(rows: Sequence[Row]) -> None:
    columns = ("wire", "overlap", "in no step", "a step", "a round", "exchange", "mix", "sent a round")
    table = Table(*columns, title="A trainer beside four neighbours, each on 100 Mbit/s")
    for row in rows:
        table.add_row(
            row.wire,
            "on" if row.overlap else "off",
            f"{row.idle:.1%}",
            f"{row.step_seconds:.2f} s",
            f"{row.round_seconds:.0f} s",
            f"{row.exchange_seconds:.1f} s",
            f"{row.mix_seconds:.1f} s",
            f"{row.sent_mb:.0f} MB",
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32, help="of the model, seven matrices each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120.0, help="of the steps of a round")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)  # a stand-in: nodes with another one would not mix
        (base / "config.json").write_text("{}")
        (base / "model.safetensors").write_bytes(b"")
        rows = [
            run(base, wire, overlap, given.layers, given.rounds, given.seconds)
            for wire in WIRES
            for overlap in (True, False)
        ]
    show(rows)
    document = {"machine": machine(), "plan": vars(given), "rows": [asdict(row) for row in rows]}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
