"""Virtual time: what is to be done when, in one order that depends on nothing but the calls."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from decaf_node.sim.violation import Violation

AT_ONE_TIME = 100_000


class Agenda:
    """``now`` is in seconds. Of two things at one time the one that was put in first is done first."""

    def __init__(self) -> None:
        self.now = 0.0
        self._count = 0
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []

    def at(self, time: float, action: Callable[..., object], *arguments: Any) -> None:
        """Do it at ``time``, or now if that is past."""
        self._count += 1
        heapq.heappush(self._heap, (time if time > self.now else self.now, self._count, action, arguments))

    def run(self, until: float) -> None:
        """Do all that is due up to and at ``until``."""
        heap, still = self._heap, 0
        while heap and heap[0][0] <= until:
            time, _, action, arguments = heapq.heappop(heap)
            still = still + 1 if time == self.now else 0
            if still > AT_ONE_TIME:
                raise Violation("livelock", f"{still} things were done at {time} s, and there is no end to it")
            self.now = time
            action(*arguments)
        self.now = until

    def __len__(self) -> int:
        return len(self._heap)
