"""How fast snapshots may leave, in a time that passes only while somebody sleeps."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.daemon.upload import SLACK_SECONDS, Upload

CHUNK = 1000


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


def send(passing: Time, rate: int, chunks: list[int]) -> list[tuple[float, int]]:
    """Let streams of so many chunks each go at once; return when each chunk left, and whose it was."""
    left: list[tuple[float, int]] = []

    async def stream(upload: Upload, number: int) -> None:
        for _ in range(chunks[number]):
            await upload.room(CHUNK)
            left.append((passing.now, number))
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        upload = Upload(rate, passing.clock, passing.sleep)
        await asyncio.gather(*(stream(upload, number) for number in range(len(chunks))))

    asyncio.run(all_of_them())
    return left


@given(st.integers(1, 100_000), st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_bytes_leave_at_the_rate(rate: int, chunks: list[int]) -> None:
    left = send(Time(), rate, chunks)
    for number, (when, _) in enumerate(left):
        assert when == pytest.approx(1000.0 + number * CHUNK / rate)


def test_streams_go_in_turn() -> None:
    left = send(Time(), 5000, [10, 10, 10])
    assert [number for _, number in left] == [0, 1, 2] * 10


def test_a_sleep_that_is_late_is_caught_up() -> None:
    left = send(Time(late=SLACK_SECONDS / 2), 5000, [100])
    assert left[-1][0] - 1000.0 == pytest.approx(99 * CHUNK / 5000, abs=SLACK_SECONDS)


def test_a_pause_saves_nothing_up() -> None:
    async def go() -> float:
        passing = Time()
        upload = Upload(5000, passing.clock, passing.sleep)
        await upload.room(CHUNK)
        passing.now += 3600.0
        began = passing.now
        for _ in range(11):
            await upload.room(CHUNK)
        return passing.now - began

    assert asyncio.run(go()) == pytest.approx(10 * CHUNK / 5000 - SLACK_SECONDS)


def test_without_a_limit_nobody_waits() -> None:
    passing = Time()
    assert [when for when, _ in send(passing, 0, [50])] == [1000.0] * 50


def test_who_gives_up_waiting_is_in_nobodys_way() -> None:
    async def go() -> float:
        passing = Time()
        upload = Upload(5000, passing.clock, passing.sleep)
        await upload.room(CHUNK)
        waiting = asyncio.create_task(upload.room(CHUNK))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await upload.room(CHUNK)
        return passing.now - 1000.0

    assert asyncio.run(go()) == pytest.approx(CHUNK / 5000)
