"""What liars in a mesh do to the honest nodes, and how much robust mixing takes away of it.

Simulated meshes of low-rank least-squares learners through the real machine and kernel: every node has part of the
inputs, and targets that are off by a fifth of their norm in a direction of its own, so that only the mesh finds the
truth. One of eight nodes lies (two of ten where it says so). The figure is the honest nodes' distance from the truth
over the last five rounds, beside its norm: 1 is as bad as having learned nothing. Prints a table, the mean over the
seeds, and writes benchmarks/results/attacks.json.

    python -m benchmarks.attacks [--seeds 1]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from decaf_node.sim.attacks import ATTACKS, Attack, HostileWorld
from decaf_node.sim.plan import Plan

RESULTS = Path(__file__).parent / "results" / "attacks.json"
PLAN = Plan(nodes=8, topology="full", rounds=20, payload="least-squares")
ROBUST = ("off", "clip", "score")


@dataclass(frozen=True)
class Row:
    """errors: by ``security.robust``, the mean over the seeds."""

    attack: str
    nodes: int
    liars: int
    errors: dict[str, float]


def play(attack: Attack, robust: str, nodes: int, seed: int) -> float:
    world = HostileWorld(replace(PLAN, nodes=nodes), seed, attack, robust)
    world.run()
    return world.error


def measure(attack: Attack, seeds: int) -> Row:
    nodes = 10 if attack.liars > 1 else PLAN.nodes
    errors = {robust: statistics.fmean(play(attack, robust, nodes, seed) for seed in range(seeds)) for robust in ROBUST}
    return Row(attack.name, nodes, attack.liars if attack.lie else 0, errors)


def show(rows: Sequence[Row]) -> None:
    table = Table(title="Error of the honest nodes")
    for column in ("attack", "liars", *ROBUST):
        table.add_column(column, justify="left" if column == "attack" else "right")
    for row in rows:
        table.add_row(row.attack, f"{row.liars} of {row.nodes}", *(figure(row.errors[robust]) for robust in ROBUST))
    Console().print(table)


def figure(error: float) -> str:
    return f"{error:.3f}" if error < 100 else f"{error:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    rows = []
    for attack in ATTACKS:
        rows.append(measure(attack, seeds))
        print(rows[-1], file=sys.stderr)  # it takes minutes
    assert all(math.isfinite(error) for row in rows for error in row.errors.values())
    show(rows)
    RESULTS.write_text(json.dumps({"seeds": seeds, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
