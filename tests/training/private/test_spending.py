"""What steps cost, against Opacus' own accountant."""

from __future__ import annotations

import warnings

import pytest
from opacus.accountants import RDPAccountant

from decaf_node.errors import BadSettings
from decaf_node.training.private.spending import epsilon_of, noise_for, steps_left

DELTA = 1e-5


def opacus_says(steps: list[tuple[float, float]], delta: float = DELTA) -> float:
    """Opacus' accountant, told of each step by itself."""
    accountant = RDPAccountant()
    for noise, rate in steps:
        accountant.step(noise_multiplier=noise, sample_rate=rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta=delta))


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.01, 100), (0.6, 0.2, 7), (4.0, 1.0, 30)])
def test_it_is_what_opacus_says(noise: float, rate: float, steps: int) -> None:
    assert epsilon_of({(noise, rate): steps}, DELTA) == opacus_says([(noise, rate)] * steps)


def test_kinds_of_steps_add_up_in_any_order() -> None:
    mixed = [(1.0, 0.01), (0.8, 0.05), (1.0, 0.01), (0.8, 0.05), (1.0, 0.01)]
    spent = {(0.8, 0.05): 2, (1.0, 0.01): 3}
    assert epsilon_of(spent, DELTA) == pytest.approx(opacus_says(mixed), rel=1e-12)
    assert epsilon_of(dict(reversed(spent.items())), DELTA) == epsilon_of(spent, DELTA)
    assert epsilon_of({}, DELTA) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epsilon", "rate", "steps"), [(8.0, 0.05, 60), (1.0, 0.01, 1000), (0.3, 0.02, 20), (3.0, 1.0, 5)]
)
def test_the_noise_lasts_for_the_plan_and_hardly_longer(epsilon: float, rate: float, steps: int) -> None:
    noise = noise_for(epsilon, DELTA, rate, steps)
    assert epsilon * 0.998 < opacus_says([(noise, rate)] * steps) <= epsilon
    left = steps_left({}, epsilon, DELTA, noise, rate)
    assert steps <= left <= steps * 1.01 + 1


def test_steps_left_are_exact() -> None:
    noise, rate, epsilon = 1.1, 0.1, 6.0
    spent = {(0.9, 0.05): 12, (noise, rate): 4}
    left = steps_left(spent, epsilon, DELTA, noise, rate)
    before = [(0.9, 0.05)] * 12 + [(noise, rate)] * 4
    assert opacus_says(before + [(noise, rate)] * left) <= epsilon
    assert opacus_says(before + [(noise, rate)] * (left + 1)) > epsilon
    assert steps_left({(noise, rate): 4 + left, (0.9, 0.05): 12}, epsilon, DELTA, noise, rate) == 0


def test_more_noise_and_rarer_examples_make_it_last_longer() -> None:
    left = steps_left({}, 2.0, DELTA, 1.0, 0.1)
    assert steps_left({}, 2.0, DELTA, 1.5, 0.1) > left
    assert steps_left({}, 2.0, DELTA, 1.0, 0.05) > left


def test_a_budget_that_no_noise_keeps_is_refused() -> None:
    with pytest.raises(BadSettings) as caught:
        noise_for(0.01, 1e-9, 0.5, 10)
    assert caught.value.reason == "privacy.epsilon-too-small"
