"""How fast each topology averages, for how many bytes, and what a node that joins does to it.

For each topology and number of members: snapshots that a node takes in a turn (degree), the factor by which a turn
shrinks the differences between the nodes (second-largest singular value of the product of the mixing matrices of one
period, to the power 1/turns), what that makes a snapshot taken (-log of the factor, by degree), and how many of a
node's neighbours, of any turn, are lost or new when one member joins. Where IDs matter: the mean over seeded draws,
and the worst factor. Prints a table and writes benchmarks/results/topologies.json.

    python -m benchmarks.topologies [--quick]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from decaf_node.mesh import fixed_graphs
from decaf_node.mesh.topology import Graph, graph
from decaf_node.mesh.weights import metropolis_weights

RESULTS = Path(__file__).parent / "results" / "topologies.json"
SIZES = (8, 16, 32, 64, 256)
TOPOLOGIES = ("full", "ring", "torus", "exponential", "one-peer-exponential", "base-k")
RINGS = (2, 3, 4, 5)
DRAWS = 20  # of member IDs
EXACT = 1e-12

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """factor: mean over the draws, 0 where a period averages exactly; gain: -log(factor) / degree, None for those."""

    topology: str
    members: int
    turns: int
    degree: float
    factor: float
    worst_factor: float
    gain: float | None
    changed_by_a_join: float


def build(topology: str, members: tuple[str, ...]) -> Graph:
    """Return a graph by name; ``random-regular/4`` has that many rings."""
    name, _, rings = topology.partition("/")
    if not rings:
        return graph(name, members)
    return Graph(members, (fixed_graphs.HashedRings(members, int(rings)),))


def mixing_matrix(of: Graph, turn: int) -> Matrix:
    """Return what one turn does to the values of all members: prescribed weights, else Metropolis'."""
    around = {member: of.neighbours(member, turn) for member in of.members}
    places = {member: place for place, member in enumerate(of.members)}
    matrix = np.zeros((len(places), len(places)))
    for member, peers in around.items():
        here = places[member]
        shares = metropolis_weights(len(peers), {peer: len(around[peer]) for peer in peers}).of
        for peer in peers:
            prescribed = of.weight(member, peer, turn)
            matrix[here, places[peer]] = shares[peer] if prescribed is None else prescribed
        matrix[here, here] = 1.0 - matrix[here].sum()
    return matrix


def factor(of: Graph) -> float:
    """Return by how much a turn shrinks what is not the mean, over one period."""
    size = len(of.members)
    product = np.eye(size)
    for turn in range(of.turns):
        product = mixing_matrix(of, turn) @ product
    norm = float(np.linalg.norm(product - 1.0 / size, ord=2))
    return 0.0 if norm < EXACT else norm ** (1.0 / of.turns)


def degree(of: Graph) -> float:
    return statistics.mean(len(of.neighbours(member, turn)) for member in of.members for turn in range(of.turns))


def changed(before: Graph, after: Graph) -> float:
    return statistics.mean(len({*before.candidates(member)} ^ {*after.candidates(member)}) for member in before.members)


def draw(random: Random) -> str:
    return "".join(random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=52))


def measure(topology: str, size: int, draws: int) -> Row:
    random = Random(size)
    factors: list[float] = []
    degrees: list[float] = []
    changes: list[float] = []
    for _ in range(draws):
        *members, joins = [draw(random) for _ in range(size + 1)]
        before = build(topology, tuple(sorted(members)))
        changes.append(changed(before, build(topology, tuple(sorted([*members, joins])))))
        if not factors or topology.startswith("random"):
            factors.append(factor(before))
            degrees.append(degree(before))
    mean, edges = statistics.mean(factors), statistics.mean(degrees)
    gain = -math.log(mean) / edges if mean else None
    return Row(topology, size, before.turns, edges, mean, max(factors), gain, statistics.mean(changes))


def show(rows: Sequence[Row]) -> None:
    table = Table(title="Topologies")
    for column in (
        "members",
        "topology",
        "turns",
        "degree",
        "factor a turn",
        "worst",
        "gain a snapshot",
        "changed by a join",
    ):
        table.add_column(column)
    for row in rows:
        table.add_row(
            str(row.members),
            row.topology,
            str(row.turns),
            f"{row.degree:.2f}",
            f"{row.factor:.3f}" if row.factor else "exact",
            f"{row.worst_factor:.3f}",
            "" if row.gain is None else f"{row.gain:.4f}",
            f"{row.changed_by_a_join:.2f}",
        )
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="up to 32 members, two draws; nothing is written")
    quick = parser.parse_args().quick
    names = (*TOPOLOGIES, *(f"random-regular/{rings}" for rings in RINGS))
    take = partial(measure, draws=2 if quick else DRAWS)
    rows = [take(name, size) for size in SIZES if size <= 32 or not quick for name in names]
    show(rows)
    if not quick:
        document = {"draws": DRAWS, "rings": fixed_graphs.RINGS, "rows": [asdict(row) for row in rows]}
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
