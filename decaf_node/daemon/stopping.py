"""How a daemon is told to end: by a signal, or by ``Leave``; and how long it may take."""

from __future__ import annotations

import asyncio
import logging
import signal

from decaf_node.daemon import service
from decaf_node.daemon.driver import Driver
from decaf_node.daemon.tasks import Tasks
from decaf_node.mesh.events import StopRequested

log = logging.getLogger(__name__)

LEAVE_SECONDS = 2.0  # of limits.stop, kept for goodbyes, for the trainer to end and for the servers


class Stopping:
    """hurry: set when the daemon must not wait for its round any more. seconds: limits.stop."""

    def __init__(self, driver: Driver, tasks: Tasks, seconds: float) -> None:
        self.hurry = asyncio.Event()
        self.goodbye: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._driver = driver
        self._tasks = tasks
        self._seconds = seconds
        self._by: float | None = None

    @property
    def begun(self) -> bool:
        """It was asked to stop."""
        return self._by is not None

    def take_signals(self) -> None:
        """Stop at SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

    def stop(self) -> None:
        """Stop cleanly; at once if it is asked for the second time."""
        if self._by is not None:
            self.hurry.set()
            return
        self._by = asyncio.get_running_loop().time() + self._seconds
        log.info("Stopping: the round is saved first. A second signal stops at once.")
        service.stopping(self._seconds)
        self._tasks.spawn(self._driver.post(StopRequested()))
        self._tasks.spawn(self._limit())

    async def leave(self) -> int:
        """Stop cleanly; return how many members have heard the goodbye, when it is said."""
        if self._by is None:
            self.stop()
        return await asyncio.shield(self.goodbye)

    def end(self, now: float) -> float:
        """Return when all is to be over: as long as a clean stop may take, but not long after an error."""
        return now + LEAVE_SECONDS if self._by is None or self.hurry.is_set() else self._by

    async def _limit(self) -> None:
        await asyncio.sleep(max(0.0, self._seconds - LEAVE_SECONDS))
        log.warning("The round could not be saved in time (limits.stop); the round saved before it is kept.")
        self.hurry.set()
