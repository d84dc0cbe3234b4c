"""Calls a second, the least rate, and back-off, in a time that the test makes pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.daemon.pace import BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS, REMEMBERED, BackOff, Pace, Progress
from decaf_node.errors import TryAgain


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(pace: Pace, peer: str, tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            pace.take(peer)
        except TryAgain:
            continue
        count += 1
    return count


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(0, 200)), max_size=30))
def test_no_more_calls_than_so_many_a_second_pass(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    pace = Pace(50, clock)
    passed = 0
    for wait, tries in steps:
        clock.now += wait
        passed += taken(pace, "a", tries)
    assert passed <= 50 + 50 * (clock.now - 1000.0) + 1e-6


def test_who_waits_may_call_again_and_others_are_not_meant() -> None:
    clock = Clock()
    pace = Pace(50, clock)
    assert taken(pace, "a", 80) == 50
    assert taken(pace, "b", 10) == 10
    clock.now += 0.1
    assert taken(pace, "a", 80) == 5


def test_a_rate_is_looked_at_once_a_window() -> None:
    progress = Progress(1000, 10.0)
    assert not progress.look(0)
    assert not progress.look(10_000)
    assert progress.look(19_999)
    assert not progress.look(None)
    assert not progress.look(19_999)
    assert progress.look(19_999)


def test_each_fault_costs_twice_as_much_until_it_is_forgotten() -> None:
    clock = Clock()
    backoff = BackOff(clock)
    assert not backoff.refuses("a")
    for times in range(20):
        backoff.blame("a")
        pause = min(FIRST_BACKOFF_SECONDS * 2**times, BACKOFF_SECONDS)
        clock.now += pause - 0.01
        assert backoff.refuses("a")
        clock.now += 0.02
        assert not backoff.refuses("a")
    clock.now += BACKOFF_SECONDS + 1
    backoff.blame("a")
    clock.now += FIRST_BACKOFF_SECONDS
    assert not backoff.refuses("a")


def test_what_is_remembered_is_bounded() -> None:
    clock = Clock()
    pace, backoff = Pace(1, clock), BackOff(clock)
    for number in range(2 * REMEMBERED):
        pace.take(str(number))
        backoff.blame(str(number))
    with pytest.raises(TryAgain):
        pace.take(str(2 * REMEMBERED - 1))
    pace.take("0")
    assert not backoff.refuses("0")
