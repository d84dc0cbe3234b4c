from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.mesh.clipping import ALONE, CROWD, FEW, LEAST, LONE, OWN, Apart, Clipping, clip, threshold
from decaf_node.mesh.lately import LATELY

any_size = st.floats(0.0, 1e300)
sizes = st.floats(1e-3, 1e3)


def factors(
    clipping: Clipping, *distances: float, norm: float = 1.0, period: int = 1, lone: bool = False
) -> list[float]:
    """Return what neighbours ``a``, ``b``, ... count for, who come one after the other."""
    return [
        clipping.factor(chr(ord("a") + number), [Apart(distance, norm)], lone, period)
        for number, distance in enumerate(distances)
    ]


# --- the formulas ----------------------------------------------------------------------------------------------------


def test_a_neighbour_pulls_by_tau_at_most() -> None:
    assert clip(2.0, 4.0) == 1.0
    assert clip(4.0, 4.0) == 1.0
    assert clip(16.0, 4.0) == 0.25
    assert clip(1e6, 4.0, floor=0.1) == 0.1
    assert clip(1e300, 1e-300) == LEAST


def test_nothing_is_clipped_where_there_is_nothing_to_measure_by() -> None:
    assert threshold([], [], 0.0) == 0.0
    assert clip(7.0, 0.0) == 1.0


def test_tau_follows_the_other_neighbours() -> None:
    assert threshold([3.0, 1.0, 2.0], [50.0], 1.0) == CROWD * 2.0
    assert threshold([1.0, 2.0, 3.0, 4.0, 5.0], [], 1.0) == CROWD * 4.0
    assert threshold([1.0, 1000.0], [], 1.0) == FEW  # one of two may lie
    assert threshold([1.0], [], 1.0) == FEW


def test_without_others_tau_follows_the_past_and_before_it_our_own_norm() -> None:
    assert threshold([], [1.0, 3.0, 2.0], 1.0) == ALONE * 2.0
    assert threshold([], [], 1.5) == ALONE * 1.5


def test_tau_is_never_nothing_beside_our_own_norm() -> None:
    assert threshold([0.0, 0.0, 0.0], [], 2.0) == OWN * 2.0


# --- who comes one after the other -----------------------------------------------------------------------------------


def test_one_that_is_far_off_is_clipped_and_the_others_are_not() -> None:
    clipping = Clipping()
    factors(clipping, 1.0, 1.2, 0.8, 1.0)
    assert factors(clipping, 1.0, 1.2, 0.8, 100.0) == [1.0, 1.0, 1.0, pytest.approx(CROWD * 1.0 / 100.0)]
    assert factors(clipping, 1.0, 1.2, 0.8, 100.0)[:3] == [1.0, 1.0, 1.0]


def test_three_liars_among_seven_neighbours_do_not_hide_each_other() -> None:
    clipping = Clipping()
    factors(clipping, *[1.0] * 4, *[50.0] * 3)
    assert factors(clipping, *[1.0] * 4, *[50.0] * 3) == [1.0] * 4 + [CROWD / 50.0] * 3


def test_two_colluders_in_ten_are_clipped() -> None:
    clipping = Clipping()
    factors(clipping, *[1.0] * 7, 50.0, 50.0)
    assert factors(clipping, *[1.0] * 7, 50.0, 50.0) == [1.0] * 7 + [CROWD / 50.0] * 2


def test_who_is_met_first_is_measured_by_our_own_norm() -> None:
    assert factors(Clipping(), 1e6, norm=0.5) == [pytest.approx(ALONE * 0.5 / 1e6)]
    assert factors(Clipping(), 1.4, norm=0.5) == [1.0]


def test_a_head_that_lies_is_clipped_though_the_factors_agree() -> None:
    clipping = Clipping()
    for peer in "abc":
        assert clipping.factor(peer, [Apart(1.0, 5.0), Apart(0.1, 1.0)], lone=False, period=1) == 1.0
    assert clipping.factor("d", [Apart(1.0, 5.0), Apart(5.0, 1.0)], lone=False, period=1) == pytest.approx(
        CROWD * 0.1 / 5.0
    )


def test_heads_that_nobody_has_change_nothing() -> None:
    clipping = Clipping()
    for peer in "abcd":
        assert clipping.factor(peer, [Apart(1.0, 5.0), Apart(0.0, 0.0)], lone=False, period=1) == 1.0


def test_who_was_seen_long_ago_tells_nothing() -> None:
    clipping = Clipping()
    factors(clipping, 0.001, 0.001, 0.001)
    lately = clipping.factor("x", [Apart(1.0, 1.0)], lone=False, period=LATELY)
    assert lately == pytest.approx(OWN)
    clipping = Clipping()
    factors(clipping, 0.1, 0.1, 0.1)
    assert clipping.factor("x", [Apart(1.0, 1.0)], lone=False, period=1 + LATELY) == 1.0


def test_two_nodes_that_trained_alone_for_long_become_a_mesh() -> None:
    """Each pulls the other; what each learns meanwhile pushes them apart by a twentieth of its norm a round."""
    clipping, apart, norm = Clipping(), 100.0, 1.0
    for period in range(1, 40):
        factor = clipping.factor("a", [Apart(apart, norm)], lone=True, period=period)
        assert factor >= LONE
        apart = apart * (1.0 - 2 * factor / 2) + norm / 20
    assert apart < 1.0


def test_an_only_neighbour_that_comes_back_from_long_training_alone_is_met_half_way() -> None:
    clipping = Clipping()
    for period in range(1, 30):
        assert factors(clipping, 0.1, period=period, lone=True) == [1.0]
    apart, periods = 50.0, 0
    while apart > 0.2:
        periods += 1
        apart *= 1.0 - factors(clipping, apart, period=30 + periods, lone=True)[0]
    assert periods < 30


def test_one_that_differs_from_a_crowd_of_the_same_is_not_left_behind() -> None:
    """Two of three nodes have the same data and seeds: between them nothing is apart. The third learns on its own."""
    near, third = Clipping(), 0.0
    for period in range(1, 200):
        near.factor("twin", [Apart(0.0, 1.0)], lone=False, period=period)
        factor = near.factor("third", [Apart(third, 1.0)], lone=False, period=period)
        third = third * (1.0 - factor) + 0.04  # 2 edges of 1/3 pull it, and 1 pulls us
    assert third < 0.2


def test_a_node_that_comes_back_to_a_crowd_catches_up() -> None:
    clipping, apart = Clipping(), 10.0
    factors(clipping, *[0.2] * 6)
    for period in range(2, 60):
        factors(clipping, *[0.2] * 6, period=period)
        factor = clipping.factor("late", [Apart(apart, 1.0)], lone=False, period=period)
        apart = apart * (1.0 - 8 * factor / 8) + 0.1
    assert apart < 0.5


def test_a_node_that_a_liar_has_led_far_off_comes_back_to_the_honest() -> None:
    """Three nodes know 10, the liar says -10, and one began at -8; its own data draw it a fifth of its way a round."""
    crowd, lost = Clipping(), Clipping()
    value, weight = -8.0, 1 / 5
    for period in range(1, 60):
        apart, norm = 10.0 - value, abs(value)
        for twin in "ab":
            crowd.factor(twin, [Apart(0.0, 10.0)], lone=False, period=period)
        theirs = crowd.factor("lost", [Apart(apart, 10.0)], lone=False, period=period)
        ours = [lost.factor(peer, [Apart(apart, norm)], lone=False, period=period) for peer in "abc"]
        for peer, factor in zip("abc", ours, strict=True):
            lost.settled(peer, min(factor, theirs))
        liar = lost.factor("liar", [Apart(value + 10.0, norm)], lone=False, period=period)
        lost.settled("liar", liar)
        pull = sum(min(factor, theirs) for factor in ours) * apart - liar * (value + 10.0)
        value += weight * pull + (10.0 - value) / 5
    assert value > 8.0


def test_an_edge_that_counted_in_full_counts_with_its_distance() -> None:
    for left, expected in ((1.0, CROWD), (0.6, CROWD), (0.25, CROWD / 2)):
        clipping = Clipping()
        factors(clipping, 1.0, 1.0, 1.0)
        for peer in "abc":
            clipping.settled(peer, left)
        assert clipping.factor("x", [Apart(100.0, 1.0)], lone=False, period=1) == pytest.approx(expected / 100.0)


# --- properties ------------------------------------------------------------------------------------------------------


@given(distance=st.floats(0.0, math.inf), others=st.lists(any_size), past=st.lists(any_size), norm=any_size)
def test_a_factor_lies_above_0_and_up_to_1_whatever_comes(
    distance: float, others: list[float], past: list[float], norm: float
) -> None:
    for floor in (LEAST, LONE):
        assert floor <= clip(distance, threshold(others, past, norm), floor) <= 1.0


@given(base=sizes, spread=st.lists(st.floats(1.0, CROWD), min_size=2, max_size=12), norm=any_size)
def test_honest_distances_that_differ_by_a_factor_of_a_few_are_never_clipped(
    base: float, spread: list[float], norm: float
) -> None:
    clipping = Clipping()
    first, *rest = [base * each for each in spread]
    clipping.factor("first", [Apart(first, norm)], lone=False, period=1)
    for period in (1, 2):
        assert all(clip(each, threshold([first, *rest], [], norm)) == 1.0 for each in (first, *rest))
        seen = [clipping.factor(str(n), [Apart(each, norm)], False, period) for n, each in enumerate(rest)]
        assert seen == [1.0] * len(rest)


@given(one=any_size, more=any_size, others=st.lists(any_size), past=st.lists(any_size), norm=any_size)
def test_the_farther_off_the_less_it_counts_and_never_more_than_tau(
    one: float, more: float, others: list[float], past: list[float], norm: float
) -> None:
    near, far = sorted((one, more))
    tau = threshold(others, past, norm)
    assert clip(far, tau) <= clip(near, tau)
    if tau > 0:
        assert clip(far, tau) * far <= max(tau * (1 + 1e-9), LEAST * far)


@given(distances=st.lists(any_size, min_size=1, max_size=5), norm=any_size, last=any_size)
def test_the_order_in_which_others_came_does_not_matter(distances: list[float], norm: float, last: float) -> None:
    results = set()
    for order in itertools.permutations(enumerate(distances)):
        clipping = Clipping()
        for name, distance in order:
            clipping.factor(str(name), [Apart(distance, norm)], lone=False, period=1)
        results.add(clipping.factor("last", [Apart(last, norm)], lone=False, period=1))
    assert len(results) == 1


@given(liars=st.lists(st.floats(1e4, 1e300), max_size=2), honest=st.lists(st.floats(0.8, 2.0), min_size=5, max_size=9))
def test_a_few_liars_move_us_no_farther_than_the_honest_could(liars: list[float], honest: list[float]) -> None:
    clipping = Clipping()
    factors(clipping, *honest, *liars)
    again = factors(clipping, *honest, *liars)
    assert again[: len(honest)] == [1.0] * len(honest)
    pulls = [factor * liar for factor, liar in zip(again[len(honest) :], liars, strict=True)]
    assert all(pull <= CROWD * 2.0 * (1 + 1e-9) or pull <= LEAST * 1e300 for pull in pulls)
