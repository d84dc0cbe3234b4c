"""The hub of events: order, resuming, gaps and bounds, by exact cases and against plain lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.daemon.hub import Hub, Missed, Numbered, StateWanted, Watcher
from decaf_node.daemon.reports import PhaseReport
from decaf_node.errors import TryAgain


def hub(events: int = 0, kept: int = 4) -> Hub:
    made = Hub("now", kept)
    say(made, events)
    return made


def say(made: Hub, events: int) -> None:
    for _ in range(events):
        made.publish(float(made.last), PhaseReport("training", made.last + 1))


def nothing() -> None:
    pass


def all_of(watcher: Watcher) -> list[object]:
    """What is to be told now: numbers for changes."""
    taken: list[object] = []
    while (event := watcher.take()) is not None:
        taken.append(event.sequence if isinstance(event, Numbered) else event)
    return taken


def test_the_state_is_first_and_changes_follow_without_gaps() -> None:
    made = hub(3)
    watcher = made.open(nothing)
    assert all_of(watcher) == [StateWanted(3)]
    say(made, 3)
    assert all_of(watcher) == [4, 5, 6]
    assert all_of(watcher) == []


def test_a_change_is_told_as_it_was_published() -> None:
    made = hub(1)
    watcher = made.open(nothing, "now", 0)
    assert watcher.take() == Numbered(1, 0.0, PhaseReport("training", 1))


@pytest.mark.parametrize(
    ("instance", "after", "told"),
    [
        ("now", 6, []),
        ("now", 4, [5, 6]),
        ("now", 2, [3, 4, 5, 6]),
        ("now", 1, [StateWanted(6)]),  # too old
        ("now", 7, [StateWanted(6)]),  # never happened
        ("before", 4, [StateWanted(6)]),
        ("", 0, [StateWanted(6)]),
    ],
)
def test_resuming(instance: str, after: int, told: list[object]) -> None:
    assert all_of(hub(6).open(nothing, instance, after)) == told


def test_who_is_too_slow_hears_of_a_gap_and_goes_on_with_the_state() -> None:
    made = hub()
    watcher = made.open(nothing)
    assert all_of(watcher) == [StateWanted(0)]
    say(made, 5)
    assert all_of(watcher) == [Missed(0, 5), StateWanted(5)]
    say(made, 4)
    assert all_of(watcher) == [6, 7, 8, 9]


def test_one_that_never_reads_costs_the_others_nothing_and_no_memory() -> None:
    made = hub()
    made.open(nothing)
    quick = made.open(nothing)
    all_of(quick)
    for number in range(1, 10_000):
        say(made, 1)
        assert all_of(quick) == [number]
    assert made.last + 1 - made.first == 4


def test_who_watches_is_woken_until_it_is_closed() -> None:
    made, woken = hub(), []
    watcher = made.open(lambda: woken.append(made.last))
    say(made, 2)
    made.close(watcher)
    say(made, 2)
    assert woken == [1, 2]
    assert made.watchers == 0


def test_watchers_are_limited() -> None:
    made = hub()
    first = made.open(nothing, at_most=2)
    made.open(nothing, at_most=2)
    with pytest.raises(TryAgain) as caught:
        made.open(nothing, at_most=2)
    assert caught.value.reason == "monitor.too-many-watchers"
    assert made.open(nothing, at_most=3)
    made.close(first)
    with pytest.raises(TryAgain):
        made.open(nothing, at_most=2)


@given(kept=st.integers(1, 6), acts=st.lists(st.integers(0, 9)))
def test_what_is_told_is_whole_or_a_gap_is_said(kept: int, acts: list[int]) -> None:
    """acts: 0 reads one, more publishes so many. A list of what a watcher knows stays equal to what it should."""
    made = hub(kept=kept)
    watcher = made.open(nothing)
    known = 0
    for act in acts:
        say(made, act)
        if act:
            continue
        match watcher.take():
            case Numbered(sequence=sequence):
                assert sequence == known + 1
                known = sequence
            case StateWanted(sequence=sequence):
                assert sequence == made.last >= known
                known = sequence
            case Missed(sequence=sequence, count=count):
                assert (sequence, sequence + count) == (known, made.last)
                assert count > kept
                assert watcher.take() == StateWanted(made.last)
                known = made.last
            case None:
                assert known == made.last
