"""Two models on the same examples: how far apart they are, and whether that may be chance. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CHANCE = 0.05  # a difference at least as likely as this between equal models is noise
NORMAL = 1.96  # standard errors to either side that hold 95 %
FEW = 30  # examples; with fewer the standard error of a loss is too uncertain itself


@dataclass(frozen=True)
class LossDifference:
    """Ours less theirs; below 0 we are better. error: standard error, infinite for a single example."""

    loss: float
    error: float
    examples: int

    @property
    def is_noise(self) -> bool:
        clear = abs(self.loss) > NORMAL * self.error  # what is no number is not
        return self.examples < FEW or not clear


@dataclass(frozen=True)
class AccuracyDifference:
    """Ours less theirs. won, lost: examples that only we, only they had right. p: McNemar's exact test, two-sided."""

    accuracy: float
    error: float
    won: int
    lost: int
    p: float

    @property
    def is_noise(self) -> bool:
        return self.p >= CHANCE


def compare_losses(ours: Sequence[float], theirs: Sequence[float], weights: Sequence[float]) -> LossDifference:
    """Compare sums over examples, each divided by the sum of ``weights``, as a ratio of two means.

    Source: the linearised variance of a ratio estimator (Cochran, Sampling Techniques, 6.3); for equal weights it is
    the standard error of a paired difference.
    """
    count, whole = len(weights), sum(weights)
    loss = (sum(ours) - sum(theirs)) / whole
    if count < 2:
        return LossDifference(loss, math.inf, count)
    squares = sum((our - their - loss * weight) ** 2 for our, their, weight in zip(ours, theirs, weights, strict=True))
    return LossDifference(loss, math.sqrt(squares * count / (count - 1)) / whole, count)


def compare_answers(ours: Sequence[bool], theirs: Sequence[bool]) -> AccuracyDifference:
    """Compare which examples two models have right. Only those on which they differ tell anything."""
    won = sum(our and not their for our, their in zip(ours, theirs, strict=True))
    lost = sum(their and not our for our, their in zip(ours, theirs, strict=True))
    count = len(ours)
    accuracy = (won - lost) / count
    error = math.sqrt((won + lost) / count - accuracy**2) / math.sqrt(count)
    return AccuracyDifference(accuracy, error, won, lost, mcnemar(won, lost))


def mcnemar(won: int, lost: int) -> float:
    """Return how likely so uneven a split of ``won + lost`` fair coins is, to either side."""
    coins = won + lost
    log_all = math.lgamma(coins + 1) - coins * math.log(2)
    tail = sum(
        math.exp(log_all - math.lgamma(heads + 1) - math.lgamma(coins - heads + 1))
        for heads in range(min(won, lost) + 1)
    )
    return min(1.0, 2 * tail)
