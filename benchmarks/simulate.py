"""What the simulator costs, and how fast each topology averages in it, beside what theory says.

Speed: large meshes for one virtual hour, and a number of storms, each in this one process; CPU seconds. Contraction:
factor by which a round shrinks the distance from the mean, nodes of one pace (a round takes 0.8 to 1.25 of it) and no
faults; theory is the factor of ``benchmarks.topologies`` for rounds in lock-step. Load: hellos and frames a node and
round. ``loop_ns`` is what an iteration of a plain loop takes here, before and after, to compare machines by, and to see
whether this one was busy. Prints tables and writes benchmarks/results/simulate.json; takes half an hour and more.
Compiled (``make compiled``) it is faster, and writes simulate-compiled.json.

    python -m benchmarks.simulate [--quick]
    cd build/compiled && PYTHONPATH=../.. ../../.venv/bin/python -m benchmarks.simulate [--quick]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.topologies import factor
from decaf_node.mesh import node
from decaf_node.mesh.topology import TOPOLOGIES, graph
from decaf_node.sim.faults import PROFILES
from decaf_node.sim.plan import Plan
from decaf_node.sim.run import Outcome, play

COMPILED = Path(node.__file__).suffix == ".so"
RESULTS = Path(__file__).parent / "results" / f"simulate{'-compiled' if COMPILED else ''}.json"
STORM = Plan(nodes=8, topology="full", rounds=30, round_seconds=10.0, spread=20.0, faults=PROFILES["storm"])
LARGE = Plan(nodes=1000, rounds=60, faults=PROFILES["mild"])
LARGE_TOPOLOGIES = ("auto", "ring", "one-peer-exponential")  # of 6 neighbours, 2, and 1 a turn
CALM = Plan(rounds=40, overlap=False)
CROWD, CROWD_ROUNDS = 1024, 8  # for the load of membership; too few rounds to see it average
SMALLEST = 1e-9  # a distance below it is rounding
WARM = 4  # rounds until everyone knows everyone
LOOP = 2_000_000


@dataclass(frozen=True)
class Speed:
    """seconds: of CPU; peak_bytes: of this process so far."""

    what: str
    runs: int
    seconds: float
    steps: int
    virtual_hours: float
    peak_bytes: int
    findings: int


@dataclass(frozen=True)
class Contraction:
    """measured and theory: factors a round, 0 where theory averages exactly within a period."""

    nodes: int
    topology: str
    measured: float
    theory: float
    hellos: float
    frames: float
    members_most: int


def measure_speed(what: str, plan: Plan, seeds: Sequence[int]) -> Speed:
    started = time.process_time()
    outcomes = [play(plan, seed) for seed in seeds]
    return Speed(
        what=what,
        runs=len(outcomes),
        seconds=time.process_time() - started,
        steps=sum(outcome.steps for outcome in outcomes),
        virtual_hours=sum(outcome.virtual_seconds for outcome in outcomes) / 3600,
        peak_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        findings=sum(outcome.finding is not None for outcome in outcomes),
    )


def measure_contraction(nodes: int, topology: str, rounds_in_all: int = CALM.rounds) -> Contraction:
    plan = replace(CALM, nodes=nodes, topology=topology, rounds=rounds_in_all)
    outcome = play(plan, 1)
    rounds = statistics.mean(pace.rounds for pace in outcome.paces)
    return Contraction(
        nodes=nodes,
        topology=topology,
        measured=shrinking(outcome, rounds / plan.rounds),
        theory=factor(graph(topology, plan.names)),
        hellos=outcome.hellos / nodes / rounds,
        frames=outcome.frames / nodes / rounds,
        members_most=outcome.members_most,
    )


def shrinking(outcome: Outcome, pace: float) -> float:
    """Return the factor a round between the warm-up and rounding. pace: rounds of a node between two measurements."""
    distances = [measure.consensus for _, measure in outcome.curve[WARM:] if measure.consensus > SMALLEST]
    return float((distances[-1] / distances[0]) ** (1 / (pace * (len(distances) - 1)))) if len(distances) > 1 else 0.0


def loop_ns() -> float:
    """Return the nanoseconds of CPU of an iteration of a plain loop."""
    last: dict[int, int] = {}
    started = time.process_time()
    for number in range(LOOP):
        last[number & 1023] = number
    return 1e9 * (time.process_time() - started) / LOOP


def show(speeds: Sequence[Speed], contractions: Sequence[Contraction], loops: Sequence[float]) -> None:
    console = Console(width=130)
    console.print(f"A plain loop: {loops[0]:.0f} ns an iteration at the beginning, {loops[1]:.0f} ns at the end.")
    table = Table(title=f"Speed, on one core, {'compiled' if COMPILED else 'interpreted'}")
    for column in (
        "what",
        "runs",
        "CPU s",
        "CPU s a run",
        "microseconds a step",
        "virtual hours",
        "peak MiB",
        "findings",
    ):
        table.add_column(column)
    for row in speeds:
        table.add_row(
            row.what,
            str(row.runs),
            f"{row.seconds:.1f}",
            f"{row.seconds / row.runs:.2f}",
            f"{1e6 * row.seconds / row.steps:.1f}",
            f"{row.virtual_hours:.1f}",
            f"{row.peak_bytes / 2**20:.0f}",
            str(row.findings),
        )
    console.print(table)
    table = Table(title="Contraction and load")
    for column in (
        "nodes",
        "topology",
        "factor a round",
        "theory",
        "hellos a round",
        "frames a round",
        "members known",
    ):
        table.add_column(column)
    for line in contractions:
        table.add_row(
            str(line.nodes),
            line.topology,
            f"{line.measured:.3f}",
            f"{line.theory:.3f}" if line.theory else "exact",
            f"{line.hellos:.1f}",
            f"{line.frames:.1f}",
            str(line.members_most),
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small meshes and few seeds; nothing is written")
    quick = parser.parse_args().quick
    sizes, loops = (16,) if quick else (16, 64, 256), [loop_ns()]
    contractions = [
        measure_contraction(nodes, topology)
        for nodes in sizes
        for topology in TOPOLOGIES
        if nodes <= 64 or topology in ("auto", "ring", "exponential")
    ]
    if not quick:
        contractions.append(measure_contraction(CROWD, "auto", CROWD_ROUNDS))
    large = replace(LARGE, nodes=64, rounds=10) if quick else LARGE
    speeds = [
        measure_speed(f"storm: {STORM.nodes} nodes, {STORM.rounds} rounds", STORM, range(5 if quick else 60)),
        *(
            measure_speed(f"mild: {large.nodes} nodes, {topology}", replace(large, topology=topology), [0])
            for topology in LARGE_TOPOLOGIES
        ),
    ]
    loops.append(loop_ns())
    show(speeds, contractions, loops)
    if not quick:
        rows = {"speed": [asdict(row) for row in speeds], "contraction": [asdict(row) for row in contractions]}
        RESULTS.write_text(json.dumps({"machine": machine(), "loop_ns": loops} | rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
