"""Gradient tracking in product space: a node makes the mesh's mean step, and not only its own.

K-GT (Liu, Lin, Koloskova, Stich, "Decentralized gradient tracking with local steps", arXiv 2301.01313), with the whole
correction after the local steps of a round, for products cannot be corrected inside the steps of their factors:

    x' = train(x) + c        what is sent, as ever
    z  = x' - x              the step of the round, sent beside it, and mixed with the same weights w
    c <- c + sum(w (z_j - z_i))

With ``g = train(x) - x`` that is ``z <- sum(w z_j) + g - g_before``: DIGing (arXiv 1607.03218) on steps of rounds in
place of gradients. A step is cut to the adapter's rank, as it is sent. Corrections sum to zero over the mesh, whatever
cutting and the wire have left of the steps; they stay with the node, and are cut at a rank that is hardly reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.learning.mixes import plus, pulls, total
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.mixing import AdapterEdge, mix_adapters

CORRECTION_RANKS = 4  # times the adapter's


@dataclass(frozen=True)
class Tracker:
    """step: z, from the node's last steps on, and mixed since; sent: what others get of it; correction: c."""

    step: Adapter
    sent: Adapter
    correction: Adapter | None = None

    def mixed(self, edges: Sequence[AdapterEdge]) -> Tracker:
        """Return it after a mix. edges: of the steps, as sent."""
        due, step = pulls(edges), total([(1.0, self.step), *pulls(edges)])
        if self.correction is None:
            return replace(self, step=step, correction=total([(0.0, self.step), *due], CORRECTION_RANKS))
        return replace(self, step=step, correction=total([(1.0, self.correction), *due]))


def corrected(trained: Adapter, correction: Adapter) -> Adapter:
    """Return ``trained + c``, its factors near."""
    return mix_adapters(trained, [plus(correction)]).adapter


def step_between(begun: Adapter, after: Adapter) -> Adapter:
    """Return ``after - begun``, cut to the rank of ``after``."""
    return total([(1.0, after), (-1.0, begun)])
