"""Readings of the node for threads that show or send them: the event loop is asked for one, the disk by the thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from prometheus_client import Metric

from decaf_node.daemon.disk_room import disk_of
from decaf_node.daemon.metrics import Reading, metrics_of

LOOP_SECONDS = 5.0  # in which the event loop answers


class Readings:
    """Made on the event loop. read: called on it, must be quick."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read
        self._loop = asyncio.get_running_loop()

    def metrics(self) -> list[Metric]:
        """Take a reading, in another thread.

        Raises TimeoutError of ``concurrent.futures`` where the loop is too busy, RuntimeError where it has ended.
        """
        reading = asyncio.run_coroutine_threadsafe(self._take(), self._loop).result(LOOP_SECONDS)
        return list(metrics_of(reading, disk_of(Path(reading.status.state_folder))))

    async def _take(self) -> Reading:
        return self._read()
