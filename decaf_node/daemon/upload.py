"""How fast snapshots may leave: so many bytes a second, to all neighbours together, who take turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

TURNS = 4  # a second: what goes at once is no more than a quarter of what goes in a second
LEAST_PIECE = 1024
SLACK_SECONDS = 0.1  # that a late sender may catch up: a loop that is busy does not slow the node down


class Upload:
    """Lets pieces of snapshots go, ``rate`` bytes a second on average; 0: at once. First come, first served.

    A stream asks for its next turn when its piece has gone, so several streams take turns. clock, sleep: monotonic
    seconds.
    """

    def __init__(
        self,
        rate: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free = clock()
        self._queue = asyncio.Lock()

    async def turn(self, most: int, wanted: Callable[[], bool]) -> int:
        """Return, once it is this stream's turn, how many bytes may go, at most ``most``.

        ``wanted`` is asked then: if it says no, the stream has ended meanwhile, and its turn costs the others nothing.
        """
        if not self._rate:
            return most
        piece = min(most, max(LEAST_PIECE, self._rate // TURNS))
        async with self._queue:
            if (wait := self._free - self._clock()) > 0:
                await self._sleep(wait)
            if wanted():
                self._free = max(self._free, self._clock() - SLACK_SECONDS) + piece / self._rate
        return piece
