"""Mixing matrices of graphs, as numpy has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decaf_node.mesh.topology import Graph
from decaf_node.mesh.weights import share

Matrix = NDArray[np.float64]


def of_turn(graph: Graph, turn: int) -> Matrix:
    """Return what one turn does to the values of all members: prescribed weights, else Metropolis'."""
    around = {member: graph.neighbours(member, turn) for member in graph.members}
    matrix = np.zeros((len(around), len(around)))
    for here, member in enumerate(graph.members):
        for peer in around[member]:
            prescribed = graph.weight(member, peer, turn)
            metropolis = share(len(around[member]), len(around[peer]))
            matrix[here, graph.members.index(peer)] = metropolis if prescribed is None else prescribed
        matrix[here, here] = 1.0 - matrix[here].sum()
    return matrix


def of_period(graph: Graph, start: int = 0) -> Matrix:
    """Return what one period does, beginning with turn ``start``."""
    product = np.eye(len(graph.members))
    for turn in range(start, start + graph.turns):
        product = of_turn(graph, turn) @ product
    return product


def factor(graph: Graph) -> float:
    """Return by how much a turn shrinks what is not the mean."""
    distance = float(np.linalg.norm(of_period(graph) - 1.0 / len(graph.members), ord=2))
    return float(distance ** (1.0 / graph.turns))
