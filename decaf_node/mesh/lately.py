"""What was seen last of each peer, for as long as it tells something."""

from __future__ import annotations

from typing import Generic, TypeVar

LATELY = 16  # rounds of ours

Seen = TypeVar("Seen")


class Lately(Generic[Seen]):
    """The last of each peer. A period is the time from one publishing of ours to the next."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, Seen]] = {}

    def note(self, peer: str, seen: Seen, period: int) -> None:
        """This is what the peer is like now."""
        self._seen[peer] = period, seen

    def others(self, peer: str, period: int) -> dict[str, Seen]:
        """Return what the others were like, and forget what is too old."""
        self._seen = {one: (when, seen) for one, (when, seen) in self._seen.items() if period - when < LATELY}
        return {one: seen for one, (_, seen) in self._seen.items() if one != peer}
