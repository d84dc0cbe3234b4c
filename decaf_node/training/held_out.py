"""What a neighbour's adapter does to our own held-out loss: a few examples, our own adapter and a half-way mix."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from decaf_node.lowrank.adapter import Adapter
from decaf_node.training.live import LiveAdapter

EXAMPLES = 64  # of the held-out part; enough to see harm, and few enough to do it for every neighbour and round

Loss = Callable[[], float]
"""Scores the model as it is on the same examples each time, without touching it or any random generator."""

Example = TypeVar("Example")


def slice_of(examples: Sequence[Example]) -> Sequence[Example]:
    """Return up to ``EXAMPLES`` of them, from everywhere: files are often sorted by label."""
    step = max(1, len(examples) // EXAMPLES)
    return [examples[place] for place in range(0, len(examples), step)][:EXAMPLES]


class HeldOut:
    """Scores adapters in the place of the live one, which is put back each time.

    The unit is the loss with the adapter that is live when this is made, before any training. Our own loss would be no
    good one: who knows its own few topics by heart has next to none, and everybody else adds many times as much.
    """

    def __init__(self, live: LiveAdapter, loss: Loss) -> None:
        self._live = live
        self._loss = loss
        self._untrained = loss()
        self._own: tuple[str, float] | None = None

    def harm(self, digest: str, own: Adapter, mixed: Adapter) -> float:
        """Return how much more loss ``mixed`` has than ``own`` (of that digest), in parts of the untrained one.

        0 if it has less. Infinity where its loss is no number.
        """
        if self._own is None or self._own[0] != digest:
            self._own = digest, self._loss_with(own)
        before, after = self._own[1], self._loss_with(mixed)
        if not math.isfinite(after):
            return math.inf
        return max(0.0, after - before) / self._untrained if self._untrained > 0 else 0.0

    def _loss_with(self, adapter: Adapter) -> float:
        now = self._live.read()
        self._live.load(adapter)
        try:
            return self._loss()
        finally:
            self._live.load(now)
