from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.mesh.clipping import LEAST
from decaf_node.mesh.scoring import ALONE, CROWD, TOLERATED, Scoring, score

harms = st.floats(0.0, math.inf)


def test_harm_is_measured_beside_that_of_the_others() -> None:
    assert score(1.0, [1.0, 0.6, 0.8]) == 1.0
    assert score(CROWD * 0.8, [1.0, 0.6, 0.8]) == 1.0
    assert score(2 * CROWD * 0.8, [1.0, 0.6, 0.8]) == pytest.approx(0.25)


def test_a_little_harm_is_tolerated_whatever_the_others_do() -> None:
    assert score(TOLERATED, [0.0, 0.0]) == 1.0
    assert score(10 * TOLERATED, [0.0, 0.0]) == pytest.approx(0.01)


def test_without_others_a_loss_may_double() -> None:
    assert score(ALONE, []) == 1.0
    assert score(2 * ALONE, []) == pytest.approx(0.25)


def test_a_loss_that_is_no_number_counts_for_next_to_nothing() -> None:
    assert score(math.inf, [0.1, 0.2]) == LEAST


def test_the_last_harm_of_each_other_neighbour_counts() -> None:
    scoring = Scoring()
    for peer in "abc":
        scoring.factor(peer, 5.0, period=1)
    for peer in "abc":
        assert scoring.factor(peer, 0.5, period=2) == 1.0
    assert scoring.factor("d", 4.0, period=2) == pytest.approx((CROWD * 0.5 / 4.0) ** 2)


@given(harm=harms, more=harms, others=st.lists(harms))
def test_the_more_harm_the_less_it_counts(harm: float, more: float, others: list[float]) -> None:
    low, high = sorted((harm, more))
    assert 0.0 < score(high, others) <= score(low, others) <= 1.0
    assert score(low, others) == score(low, sorted(others))
