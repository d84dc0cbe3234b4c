"""How fast snapshots may leave: so many bytes a second, all neighbours together, each in its turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

SLACK_SECONDS = 0.1  # that a late sender may catch up: a loop that is busy does not slow the node down


class Upload:
    """Lets chunks go at ``rate`` bytes a second on average; 0: at once. Who waits goes before who comes later.

    A stream asks for its next chunk when the one before has gone, so several streams go on chunk by chunk in turn.
    clock, sleep: monotonic seconds.
    """

    def __init__(
        self,
        rate: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free = clock()
        self._turn = asyncio.Lock()

    async def room(self, size: int) -> None:
        """Return when so many bytes may go."""
        if not self._rate:
            return
        async with self._turn:
            if (wait := self._free - self._clock()) > 0:
                await self._sleep(wait)
            self._free = max(self._free, self._clock() - SLACK_SECONDS) + size / self._rate
