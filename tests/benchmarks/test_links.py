"""What the bench of links makes of what the bridge has counted."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.links import GAP_SAMPLES, SAMPLE_SECONDS, WINDOW_SAMPLES, windows

STEP = 500_000


def samples(*steps: Sequence[int]) -> list[tuple[float, list[int]]]:
    """Return counters after each step; one says how many bytes each of two neighbours gets."""
    seen = [(0.0, [0, 0])]
    for moment, step in enumerate(steps, 1):
        seen.append((moment * SAMPLE_SECONDS, [now + more for now, more in zip(seen[-1][1], step, strict=True)]))
    return seen


def test_neighbours_who_take_turns_are_all_being_sent_to() -> None:
    turns = [[STEP, 0], [0, STEP]] * (3 * WINDOW_SAMPLES // 2)  # of the first and the last window one may not see it
    assert windows(samples(*turns)) == [[STEP / 2 / SAMPLE_SECONDS] * 2]


def test_what_no_neighbour_or_one_alone_gets_is_no_window() -> None:
    idle, alone = [[100, 100]] * (2 * WINDOW_SAMPLES), [[STEP, 0]] * (2 * WINDOW_SAMPLES)
    assert windows(samples(*idle)) == windows(samples(*alone)) == []
    assert windows(samples(*[[STEP, STEP]] * WINDOW_SAMPLES, *idle[: GAP_SAMPLES + 1], *idle)) == [
        [STEP / SAMPLE_SECONDS] * 2
    ]
