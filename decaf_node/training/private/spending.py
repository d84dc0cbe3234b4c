"""How much of a budget steps cost: Opacus' accountant of Rényi differential privacy.

A step with noise multiplier z, over batches that hold each example with probability q, costs what Mironov, Talwar and
Zhang work out (arXiv 1908.10530); costs of steps add up, in any order, and are turned into epsilon for a given delta.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis import rdp as renyi
from opacus.accountants.utils import get_noise_multiplier

from decaf_node.errors import BadSettings

MOST_STEPS = 2**40
Spent = Mapping[tuple[float, float], int]  # (noise multiplier, sampling rate) -> steps


def epsilon_of(spent: Spent, delta: float) -> float:
    """Return the epsilon that all these steps have cost together, as ``RDPAccountant`` says it. An upper bound."""
    costs = sum(_cost_of_one(noise, rate) * steps for (noise, rate), steps in sorted(spent.items()))
    if not sum(spent.values()):
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a best order at the end of its list: the bound holds all the same
        epsilon, _ = renyi.get_privacy_spent(orders=RDPAccountant.DEFAULT_ALPHAS, rdp=costs, delta=delta)
    return float(epsilon)


@lru_cache(maxsize=64)  # a tenth of a second each, and a budget asks for the same again and again
def _cost_of_one(noise: float, rate: float) -> NDArray[np.float64]:
    """Return the cost of one step at each of the accountant's orders."""
    cost: Any = renyi.compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=RDPAccountant.DEFAULT_ALPHAS)
    return np.asarray(cost, dtype=np.float64)


def noise_for(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """Return the least noise multiplier, to a thousandth of epsilon, with which so many steps cost no more.

    Raises BadSettings if none is enough.
    """
    if epsilon <= _least(delta):
        raise _too_small(epsilon, delta, steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            noise = get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=rate,
                steps=steps,
                accountant="rdp",
                epsilon_tolerance=epsilon / 1000,
            )
        except ValueError:
            raise _too_small(epsilon, delta, steps) from None
    return float(noise)


def steps_left(spent: Spent, epsilon: float, delta: float, noise: float, rate: float) -> int:
    """Return how many more steps of this kind fit into the budget beside what is spent."""

    def fits(more: int) -> bool:
        key = (noise, rate)
        return epsilon_of({**spent, key: spent.get(key, 0) + more}, delta) <= epsilon

    if not fits(1):
        return 0
    low, high = 1, 2  # low fits
    while high <= MOST_STEPS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _least(delta: float) -> float:
    """Return the epsilon that the accountant's orders cannot go below, however much noise there is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        orders = RDPAccountant.DEFAULT_ALPHAS
        epsilon, _ = renyi.get_privacy_spent(orders=orders, rdp=np.zeros(len(orders)), delta=delta)
    return float(epsilon)


def _too_small(epsilon: float, delta: float, steps: int) -> BadSettings:
    return BadSettings(
        "privacy.epsilon-too-small",
        f"No noise is enough, as Opacus counts, for {steps} steps within epsilon {epsilon:g} and delta {delta:g} "
        f"({_least(delta):.2g} is the least for that delta); raise either, or plan fewer steps.",
    )
