from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from decaf_node.mesh.clipping import LEAST
from decaf_node.mesh.scoring import ALONE, CROWD, TOLERATED, Scoring, score, worst

harms = st.floats(0.0, math.inf)
sound = st.floats(0.0, 2.0)


def test_harm_is_measured_beside_that_of_the_worst_other() -> None:
    assert score(1.0, [0.2, 0.6, 0.8]) == 1.0
    assert score(CROWD * 0.8, [0.2, 0.6, 0.8]) == 1.0
    assert score(2 * CROWD * 0.8, [0.2, 0.6, 0.8]) == pytest.approx(0.25)


def test_a_quarter_of_the_others_may_lie() -> None:
    assert worst([0.3]) == 0.3
    assert worst([0.1, 0.2, 0.3, 0.4]) == 0.4
    assert worst([0.1, 0.2, 0.3, 0.4, 9.0]) == 0.4
    assert worst([0.1] * 6 + [0.4, 9.0, 9.0]) == 0.4


def factors(scoring: Scoring, neighbours: dict[str, float]) -> list[float]:
    """Return the factors of a round, after one in which all of them were seen."""
    for period in (1, 2):
        last = [scoring.factor(peer, harm, period) for peer, harm in neighbours.items()]
    return last


def test_who_has_other_topics_than_most_of_us_counts_in_full() -> None:
    """Most neighbours hold our topics, and do no harm; it says nothing against those who do not."""
    neighbours = {"a": 0.0, "b": 0.0, "c": 0.01, "d": 0.01, "e": 0.4, "f": 0.6, "g": 0.7}
    assert factors(Scoring(), neighbours) == [1.0] * 7


def test_one_that_does_more_harm_than_all_others_is_put_out() -> None:
    neighbours = {"a": 0.0, "b": 0.01, "c": 0.4, "liar": 8.0}
    assert factors(Scoring(), neighbours) == [1.0, 1.0, 1.0, pytest.approx((CROWD * 0.4 / 8.0) ** 2)]


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


@given(others=st.lists(sound, min_size=1, max_size=12), lies=st.lists(harms, max_size=4))
def test_up_to_a_quarter_of_liars_do_not_hide_another(others: list[float], lies: list[float]) -> None:
    assume(len(lies) <= (len(others) + len(lies) - 1) // 4)
    assert worst(others + lies) <= max(others)


@given(harm=harms, others=st.lists(sound, min_size=1, max_size=12))
def test_who_does_little_more_than_enough_others_counts_in_full(harm: float, others: list[float]) -> None:
    """More others than a quarter of all but one have to be as bad: a plain count says the same."""
    as_bad = sum(harm <= max(TOLERATED, CROWD * other) for other in others)
    assert (score(harm, others) == 1.0) == (as_bad > (len(others) - 1) // 4)
