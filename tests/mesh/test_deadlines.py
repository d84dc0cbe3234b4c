"""How long is waited for whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.mesh.deadlines import Arrivals, Deadlines

FLOOR, CEILING = 1.0, 120.0


def paced(*lengths: float, overlap: bool = False) -> Deadlines:
    """Return deadlines of a node whose rounds took so long."""
    deadlines, now = Deadlines(FLOOR, CEILING, overlap), 0.0
    deadlines.started(now)
    for length in lengths:
        now += length
        deadlines.trained(now)
        deadlines.mixed(now)
    return deadlines


def arrivals(*delays: float, misses: int = 0) -> Arrivals:
    known = Arrivals()
    for delay in delays:
        known.arrived(delay)
    for _ in range(misses):
        known.missed()
    return known


def test_nothing_known_gives_founding_nodes_time_to_start() -> None:
    assert paced().wait(arrivals()) == 30.0
    assert paced(0.5).wait(arrivals()) == 30.0


def test_a_steady_neighbour_is_waited_for_a_little_longer_than_it_takes() -> None:
    assert paced(60.0).wait(arrivals(*[4.0] * 10)) == 6.0


def test_an_unsteady_one_longer() -> None:
    wait = paced(60.0).wait(arrivals(*[2.0, 4.0, 6.0] * 5))
    assert wait == 4.0 + 4 * 2.0


def test_old_delays_are_forgotten() -> None:
    assert paced(60.0).wait(arrivals(*[50.0] * 100, *[2.0] * 32)) == 3.0


def test_floor_and_ceiling_hold() -> None:
    assert paced(600.0).wait(arrivals(0.01, 0.01)) == FLOOR
    assert paced(600.0).wait(arrivals(500.0, 500.0)) == CEILING


def test_a_neighbour_20_times_slower_does_not_hold_us_to_its_pace() -> None:
    deadlines = paced(*[2.0] * 8)
    assert deadlines.wait(arrivals(40.0, 40.0)) == 2.0
    assert deadlines.wait(arrivals(40.0, 40.0, misses=5)) == FLOOR


def test_misses_in_a_row_shorten_the_wait_and_an_edge_in_time_lengthens_it() -> None:
    deadlines, slow = paced(60.0), arrivals(*[20.0] * 5)
    waits = []
    for _ in range(8):
        waits.append(deadlines.wait(slow))
        slow.missed()
    assert waits == [30.0, 30.0, 30.0, 15.0, 7.5, 3.75, 1.875, 1.0]
    slow.met()
    assert deadlines.wait(slow) > FLOOR


def test_one_that_never_comes_costs_a_bounded_time_in_all() -> None:
    deadlines, never = paced(60.0), arrivals()
    total = 0.0
    for _ in range(100):
        total += deadlines.wait(never) - FLOOR
        never.missed()
    assert total < 60.0


def test_with_overlap_a_round_held_up_by_the_mix_says_nothing_about_our_pace() -> None:
    deadlines = Deadlines(FLOOR, CEILING, overlap=True)
    deadlines.started(0.0)
    deadlines.trained(5.0)
    for round in range(1, 20):  # the mix waits 40 s for someone, and the next round is trained long before
        deadlines.mixed(40.0 * round)
        deadlines.trained(40.0 * round + 0.1)
    assert deadlines.wait(arrivals(40.0)) == 5.0


def test_with_overlap_training_runs_from_publishing_to_publishing() -> None:
    deadlines = Deadlines(FLOOR, CEILING, overlap=True)
    deadlines.started(0.0)
    for round in range(1, 20):
        deadlines.trained(10.0 * round)
        deadlines.mixed(10.0 * round + 3.0)
    assert deadlines.wait(arrivals(40.0)) == 10.0


@given(
    st.lists(st.floats(0.01, 1000.0), max_size=10),
    st.lists(st.floats(0.0, 1e6), max_size=50),
    st.integers(0, 2000),
    st.booleans(),
)
def test_every_wait_lies_between_floor_and_ceiling(
    paces: list[float], delays: list[float], misses: int, overlap: bool
) -> None:
    wait = paced(*paces, overlap=overlap).wait(arrivals(*delays, misses=misses))
    assert FLOOR <= wait <= CEILING


@pytest.mark.parametrize("limit", [0.0, 5.0])
def test_floor_and_ceiling_may_be_one(limit: float) -> None:
    assert Deadlines(limit, limit, overlap=False).wait(arrivals(3.0)) == limit
