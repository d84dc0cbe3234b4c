"""Tasks in the background: kept until they are done, and none fails unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """The background tasks of the daemon. ``failed`` gets the first exception of any: whoever runs the daemon waits."""

    def __init__(self) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work`` in the background."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def cancel(self) -> None:
        """End all that still runs, and wait for it."""
        running = sorted(self._running, key=lambda task: task.get_name())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def fail(self, error: BaseException) -> None:
        """End the daemon with this error, unless another was first."""
        if not self.failed.done():
            self.failed.set_exception(error)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        if error := task.exception():
            self.fail(error)
