"""How much a neighbour counts for by what its product does to our own held-out loss.

The trainer tells of each snapshot what a half-way mix with it adds to our loss on examples that are kept back, in parts
of that loss: its *harm*. An honest neighbour does harm too, where its data are other than ours. So harm is measured as
distances are (see ``clipping``): beside that of the other neighbours, and never below what is tolerated anyway. What is
beyond counts for less, by the square: unlike a distance, harm has no other bound.

A node that alone holds a label does more harm than all others to a mesh that has never seen it, and is put out by this.
That is why it is to be asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from decaf_node.mesh.clipping import LEAST, clip
from decaf_node.mesh.lately import Lately

CROWD = 2.0  # times the others' median harm
TOLERATED = 0.1  # of our loss, whatever the others do
ALONE = 1.0  # of our loss, where there are no others


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
    tolerated = max(TOLERATED, CROWD * median_low(others)) if others else ALONE
    return max(LEAST, clip(harm, tolerated) ** 2)
