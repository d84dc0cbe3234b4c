"""Metropolis weights: what each neighbour counts for, so that the mean over the mesh is kept.

An edge between nodes of degrees ``d_i`` and ``d_j`` weighs ``1 / (1 + max(d_i, d_j))``: the same at both ends, and a
node's edges never sum above ``d_i / (1 + d_i)``. Source: Xiao and Boyd, "Fast linear iterations for distributed
averaging", 2004.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ROUNDING = 1e-12  # what a sum of weights may be off by


@dataclass(frozen=True)
class Weights:
    """own: what the node keeps of itself; of: each neighbour's weight. Together they are 1."""

    own: float
    of: dict[str, float]


def metropolis_weights(degree: int, neighbour_degrees: Mapping[str, int]) -> Weights:
    """Return the weights of a node of ``degree`` whose neighbours of this round have ``neighbour_degrees``.

    An edge that failed is left out of ``neighbour_degrees``: its weight stays with ``own`` (at both ends, since the
    other end leaves it out too), and the other weights stay as they are.
    """
    assert len(neighbour_degrees) <= degree, "more edges than the degree that was frozen"
    of = {peer: share(degree, neighbour_degrees[peer]) for peer in sorted(neighbour_degrees)}
    return Weights(own=1.0 - sum(of.values(), 0.0), of=of)


def share(degree: int, theirs: int, reserve: float = 0.0) -> float:
    """Return the weight that a node of ``degree`` proposes for an edge to one of degree ``theirs``.

    ``reserve`` is what its edges of earlier rounds may still take, so that all of them together stay within 1.
    """
    return (1.0 - reserve) / (1 + max(degree, theirs))
