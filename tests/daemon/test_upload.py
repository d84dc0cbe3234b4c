"""How fast snapshots may leave, in a time that passes only while somebody sleeps."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.daemon.upload import LEAST_PIECE, SLACK_SECONDS, Upload
from decaf_node.settings import LEAST_UPLOAD, LimitsSection

MOST = 4096
RATES = st.integers(4 * LEAST_PIECE, 100_000)


class Time:
    """Passes at once, but lets the others do what they can meanwhile. late: what a sleep takes longer."""

    def __init__(self, late: float = 0.0) -> None:
        self.now = 1000.0
        self._late = late

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now += seconds + self._late


def yes() -> bool:
    return True


def send(passing: Time, rate: int, pieces: list[int]) -> list[tuple[float, int, int]]:
    """Let streams of so many pieces each go at once; return when each piece left, whose it was, and its size."""
    left: list[tuple[float, int, int]] = []

    async def stream(upload: Upload, number: int) -> None:
        for _ in range(pieces[number]):
            size = await upload.turn(MOST, yes)
            left.append((passing.now, number, size))
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        upload = Upload(rate, passing.clock, passing.sleep)
        await asyncio.gather(*(stream(upload, number) for number in range(len(pieces))))

    asyncio.run(all_of_them())
    return left


@given(RATES, st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_bytes_leave_at_the_rate_and_in_small_pieces(rate: int, pieces: list[int]) -> None:
    sent = 0
    for when, _, size in send(Time(), rate, pieces):
        assert when == pytest.approx(1000.0 + sent / rate)
        assert 0 < size <= min(MOST, rate / 4)
        sent += size


def test_streams_take_turns() -> None:
    left = send(Time(), 5000, [10, 10, 10])
    assert [number for _, number, _ in left] == [0, 1, 2] * 10


def test_a_sleep_that_is_late_is_caught_up() -> None:
    left = send(Time(late=SLACK_SECONDS / 2), 8192, [100])
    assert left[-1][0] - 1000.0 == pytest.approx(99 * 2048 / 8192, abs=SLACK_SECONDS)


def test_a_pause_saves_nothing_up() -> None:
    async def go() -> float:
        passing = Time()
        upload = Upload(8192, passing.clock, passing.sleep)
        await upload.turn(MOST, yes)
        passing.now += 3600.0
        began = passing.now
        for _ in range(11):
            await upload.turn(MOST, yes)
        return passing.now - began

    assert asyncio.run(go()) == pytest.approx(10 * 2048 / 8192 - SLACK_SECONDS)


def test_without_a_limit_nobody_waits() -> None:
    assert send(Time(), 0, [50]) == [(1000.0, 0, MOST)] * 50


@pytest.mark.parametrize("cancelled", [True, False])
def test_who_has_ended_while_waiting_costs_the_others_nothing(cancelled: bool) -> None:
    async def go() -> float:
        passing = Time()
        upload = Upload(8192, passing.clock, passing.sleep)
        await upload.turn(MOST, yes)
        waiting = [asyncio.create_task(upload.turn(MOST, lambda: False)) for _ in range(20)]
        await asyncio.sleep(0)
        if cancelled:
            for task in waiting:
                task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await upload.turn(MOST, yes)
        return passing.now - 1000.0

    assert asyncio.run(go()) == pytest.approx(2048 / 8192)


def test_a_limit_that_neighbours_would_not_wait_for_is_refused() -> None:
    with pytest.raises(ValueError, match="too little for neighbours"):
        LimitsSection(upload_bytes_per_second=LEAST_UPLOAD - 1)
    assert LimitsSection(upload_bytes_per_second=LEAST_UPLOAD).upload_bytes_per_second == LEAST_UPLOAD
    assert LimitsSection().upload_bytes_per_second == 0
