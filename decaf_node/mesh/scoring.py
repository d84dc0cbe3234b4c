"""How much a neighbour counts for by what its product does to our own held-out loss.

The trainer tells of each snapshot what a half-way mix with it adds to our loss on examples that are kept back, in parts
of the loss of a model that has learned nothing: its *harm*. An honest neighbour does harm too, where its data are other
than ours, and those that share our topics do next to none. So harm is measured beside that of the worst of the other
neighbours, but for a quarter of them who may lie, and never below what is tolerated anyway. What is beyond counts for
less, by the square: unlike a distance, harm has no other bound.

A node that alone holds a label may do more harm than all others to a mesh that has never seen it, and be put out by
this. That is why it is to be asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from decaf_node.mesh.clipping import LEAST, clip
from decaf_node.mesh.lately import Lately

CROWD = 2.5  # times the harm of the worst of the others
LYING = 0.25  # of the others may lie: so many of the worst are left out
TOLERATED = 0.1  # of the untrained loss, whatever the others do
ALONE = 1.0  # of that loss, where there are no others


class Scoring:
    """What the neighbours' harm was lately, and what they are worth by it."""

    def __init__(self) -> None:
        self._seen: Lately[float] = Lately()

    def factor(self, peer: str, harm: float, period: int) -> float:
        """Return how much of its weight an edge with the peer counts for, and remember the harm."""
        factor = score(harm, list(self._seen.others(peer, period).values()))
        self._seen.note(peer, harm, period)
        return factor


def score(harm: float, others: Sequence[float]) -> float:
    """Return the factor, above 0 and up to 1. others: the last harm of each other neighbour."""
    tolerated = max(TOLERATED, CROWD * worst(others)) if others else ALONE
    return max(LEAST, clip(harm, tolerated) ** 2)


def worst(harms: Sequence[float]) -> float:
    """Return the highest but for the part that may lie, rounded down: of one to four all of them count."""
    return sorted(harms, reverse=True)[int(LYING * (len(harms) - 1))]
