"""How far a neighbour may pull: clipped gossip in product space.

An edge of two snapshots that are ``distance`` apart counts ``min(1, tau / distance)`` of its weight, so that a
neighbour moves us by at most ``weight * tau`` a round, however far off its snapshot is. Each end works out its own
factor, and the edge uses the smaller weight of the two at both ends, which keeps the mean over the mesh.

tau follows from what was seen, in units of what is seen; nothing is to be tuned:

- ``CROWD`` times the upper quartile of the *other* neighbours' last distances (``FEW`` times the lower of them where
  there are one or two): a liar cannot stretch it for itself, a quarter of liars not for each other, and the honest stay
  below it. In simulated meshes, of data as unlike as can be and paces 20 times apart, none came above 2.3 times the
  quartile, and none above 2.8 times the lower of two;
- of three and more others those that the edge has let pull by less than half of their distance count with twice what it
  let them. The honest hold a node that a liar has led far off for far off, and their edges with it are clipped; if it
  went by their distance alone, the liar would be the nearest that it has, and keep it;
- where no other was seen lately, ``ALONE`` times the median of past distances; before the first of them ``ALONE`` times
  the norm of our own;
- never less than ``OWN`` of that norm. Where most neighbours are the same to the last bit (the same data and seeds) one
  that learns something else would count for nothing, and be left behind for ever.

With one neighbour alone nobody can tell who of the two is wrong, and they must become a mesh, even if both have trained
alone for a year: then the factor is never below ``LONE``.

Factors and plainly averaged tensors (classification heads) have other scales, so each has a distance and a tau of its
own, and the smallest factor counts: who lies in the heads alone is seen.

Source: L. He, S. P. Karimireddy, M. Jaggi, "Byzantine-robust decentralized learning via ClippedGossip", 2022
(arXiv 2202.01545), there with a tau that is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from decaf_node.mesh.lately import Lately

CROWD = 2.5  # times the upper quartile of the others' distances
FEW = 4.0  # times the lower of them, where there are less than three
ALONE = 20.0  # times the median of past distances, or our own norm, where there are no others
PARTLY = 2.0  # times the part of an edge's weight that was left, up to 1: so much of a distance counts
OWN = 0.05  # of our own norm: what every neighbour may pull by
LONE = 0.1  # the least factor of an only neighbour
LEAST = 1e-12  # a factor is never 0; an edge that would count for so little is refused
PAST = 16  # distances remembered for a time without others


@dataclass(frozen=True)
class Apart:
    """How far their tensors of one kind are from ours (Frobenius), and how large ours are."""

    distance: float
    norm: float


class Clipping:
    """What the neighbours' distances were lately, and what they are worth by it."""

    def __init__(self) -> None:
        self._seen: Lately[tuple[float, ...]] = Lately()
        self._left: dict[str, float] = {}
        self._past: deque[tuple[float, ...]] = deque(maxlen=PAST)

    def factor(self, peer: str, kinds: Sequence[Apart], lone: bool, period: int) -> float:
        """Return how much of its weight an edge with the peer counts for, and remember the distances.

        kinds:  of its snapshot to ours, always as many and in the same order
        lone:   it is the only one that may be our neighbour
        period: how often we have published
        """
        others = self._others(peer, period)
        factors = [
            clip(
                apart.distance,
                threshold([seen[kind] for seen in others], [past[kind] for past in self._past], apart.norm),
                floor=LONE if lone else LEAST,
            )
            for kind, apart in enumerate(kinds)
        ]
        distances = tuple(apart.distance for apart in kinds)
        self._seen.note(peer, distances, period)
        self._left.pop(peer, None)
        self._past.append(distances)
        return min(factors)

    def settled(self, peer: str, left: float) -> None:
        """The last edge with the peer counts, with this part of its weight: what both ends' factors have left."""
        self._left[peer] = left

    def _others(self, peer: str, period: int) -> list[tuple[float, ...]]:
        """Return by how much each other neighbour may have pulled, one figure a kind."""
        seen = self._seen.others(peer, period)
        self._left = {other: left for other, left in self._left.items() if other in seen}
        parts = {other: min(1.0, PARTLY * self._left.get(other, 1.0)) if len(seen) >= 3 else 1.0 for other in seen}
        return [tuple(parts[other] * distance for distance in seen[other]) for other in seen]


def threshold(others: Sequence[float], past: Sequence[float], norm: float) -> float:
    """Return tau; 0 where there is nothing to measure by.

    others: last distances of the other neighbours; past: of all of them, some time ago; norm: of our own tensors
    """
    if not others:
        learned = ALONE * (median_low(past) if past else norm)
    elif len(others) < 3:
        learned = FEW * min(others)
    else:
        learned = CROWD * upper_quartile(others)
    return max(learned, OWN * norm)


def upper_quartile(values: Sequence[float]) -> float:
    """Return one of the values that at most three quarters of the others are below."""
    return sorted(values)[3 * (len(values) - 1) // 4]


def clip(distance: float, tau: float, floor: float = LEAST) -> float:
    """Return ``min(1, tau / distance)``, from ``floor`` to 1; 1 where tau is 0: nothing is known then."""
    if tau <= 0.0 or distance <= tau:
        return 1.0
    return max(floor, tau / distance)
