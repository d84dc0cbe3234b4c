"""Devices that have asked to join without an invitation, and wait for a person to approve them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from decaf_node.errors import NotAllowed, TryAgain

PATIENCE_SECONDS = 30.0  # who has not asked again for so long waits no more
A_SOURCE_AT_MOST = 4


@dataclass(frozen=True)
class Applicant:
    """One device that waits. source: the host that it asks from."""

    node: str
    name: str
    source: str
    asked: float
    approved: bool = False


class WaitingList:
    """Who waits. limit: most at a time; clock: monotonic seconds."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._until = float("-inf")
        self._waiting: dict[str, Applicant] = {}

    def open(self, seconds: float) -> None:
        """Let devices ask for so long from now on."""
        self._until = max(self._until, self._clock() + seconds)

    @property
    def is_open(self) -> bool:
        """Devices may ask now."""
        return self._clock() < self._until

    def ask(self, node: str, name: str, source: str) -> bool:
        """The device asks, or asks again; say whether it is approved.

        Raises NotAllowed ``join.not-expected`` where nobody may ask, TryAgain ``join.too-many-wait``.
        """
        self._forget()
        before = self._waiting.get(node)
        if before is None:
            self._admit(source)
        approved = before is not None and before.approved
        self._waiting[node] = Applicant(node, name, source, self._clock(), approved)
        return approved

    def waiting(self) -> list[Applicant]:
        """Return who waits, who came first at the head."""
        self._forget()
        return [each for each in self._waiting.values() if not each.approved]

    def approve(self, node: str) -> bool:
        """Let the device in when it asks next; say whether it waits at all."""
        self._forget()
        if node not in self._waiting:
            return False
        self._waiting[node] = replace(self._waiting[node], approved=True)
        return True

    def done(self, node: str) -> None:
        """The device has its certificate."""
        self._waiting.pop(node, None)

    def _admit(self, source: str) -> None:
        if not self.is_open:
            raise NotAllowed(
                "join.not-expected",
                "Nobody is expected here without an invitation; run `decaf-node approve` on a member, and ask again.",
            )
        from_there = Counter(each.source for each in self._waiting.values())[source]
        if len(self._waiting) >= self._limit or from_there >= A_SOURCE_AT_MOST:
            raise TryAgain("join.too-many-wait", "Too many devices wait for approval there; try again in a minute.")

    def _forget(self) -> None:
        now = self._clock()
        for node in [each.node for each in self._waiting.values() if now - each.asked > PATIENCE_SECONDS]:
            del self._waiting[node]
