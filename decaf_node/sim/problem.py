"""What simulated nodes compute: a problem gives values that are trained, mixed and measured. Here the smallest one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

Term = tuple[float, Any, Any]  # weight, our value and theirs: ``weight * (theirs - ours)`` is due


@dataclass(frozen=True)
class Mixed:
    """A mixed value. tail: norm of what a truncation has cut."""

    value: Any
    tail: float = 0.0


@dataclass(frozen=True)
class Measure:
    """The mesh at one moment. consensus: root mean square distance of the nodes from their mean; loss: nan if none."""

    consensus: float
    loss: float
    norm: float


class Problem(Protocol):
    """Values are immutable. Node ``number`` of the plan has data of its own where the problem has data."""

    snapshot_bytes: int

    def fresh(self, number: int) -> Any:
        """Return the value that a node starts from."""

    def train(self, value: Any, number: int, random: Random) -> Any:
        """Return the value after one round of local steps."""

    def mix(self, value: Any, terms: Sequence[Term]) -> Mixed:
        """Return ``value + sum(weight * (theirs - ours))``."""

    def adopt(self, value: Any, candidates: Sequence[Any], base: Any) -> tuple[int, Any]:
        """Return which candidate is the medoid, and it plus our own change since ``base`` (None: since the start)."""

    def distance(self, one: Any, other: Any) -> float:
        """Return how far apart two values are."""

    def norm(self, value: Any) -> float:
        """Return how large a value is."""

    def harm(self, own: Any, theirs: Any, number: int) -> float:
        """Return what a half-way mix adds to a node's own loss, in parts of the loss of doing nothing."""

    def residual(self, before: Any, terms: Sequence[Term], after: Any) -> float:
        """Return how far a mix is off the exact sum: its tail, if it is right."""

    def measure(self, values: Sequence[Any]) -> Measure:
        """Look at the values of all nodes that are up."""


class Averaging:
    """A number a node, and no training: what is left is consensus, which theory knows exactly.

    The numbers are drawn from a normal distribution; ``measure`` shows how fast their spread shrinks.
    """

    def __init__(self, nodes: int, seed: int) -> None:
        random = Random(f"averaging {seed}")
        self.snapshot_bytes = 1000
        self._starts = [random.gauss(0.0, 1.0) for _ in range(nodes)]

    def fresh(self, number: int) -> float:
        """See ``Problem``."""
        return self._starts[number]

    def train(self, value: float, number: int, random: Random) -> float:
        """See ``Problem``."""
        return value

    def mix(self, value: float, terms: Sequence[Term]) -> Mixed:
        """See ``Problem``."""
        return Mixed(value + sum(weight * (theirs - ours) for weight, ours, theirs in terms))

    def adopt(self, value: float, candidates: Sequence[float], base: float | None) -> tuple[int, float]:
        """See ``Problem``. Nothing was trained, so there is no change of our own."""
        sums: list[float] = [sum(abs(one - other) for other in candidates) for one in candidates]
        chosen = min(range(len(sums)), key=sums.__getitem__)
        return chosen, candidates[chosen]

    def distance(self, one: float, other: float) -> float:
        """See ``Problem``."""
        return abs(one - other)

    def norm(self, value: float) -> float:
        """See ``Problem``."""
        return abs(value)

    def harm(self, own: float, theirs: float, number: int) -> float:
        """See ``Problem``. Without data there is no harm."""
        return 0.0

    def residual(self, before: float, terms: Sequence[Term], after: float) -> float:
        """See ``Problem``."""
        exact: float = self.mix(before, terms).value
        return abs(exact - after)

    def measure(self, values: Sequence[float]) -> Measure:
        """See ``Problem``."""
        mean = sum(values) / len(values)
        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
        return Measure(spread, math.nan, abs(mean))
