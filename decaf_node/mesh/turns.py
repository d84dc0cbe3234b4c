"""The turns of a graph that changes from turn to turn: a counter at each node, kept together by what is heard.

Rounds are each node's own, so turns are counted like Lamport's clocks ("Time, clocks, and the ordering of events in a
distributed system", 1978): nodes of one pace publish for the same turn, and one that is slower, or new, skips to the
turn that the others are at.
"""

from __future__ import annotations

from collections.abc import Collection

LEAP = 2**32  # turns that one publishing moves forward at most, so that no peer exhausts the counter


class Turns:
    """last: the turn for which we have published; 0 before the first."""

    def __init__(self) -> None:
        self.last = 0
        self._heard: dict[str, int] = {}

    def hear(self, peer: str, turn: int) -> None:
        """The peer's offer names this turn."""
        self._heard[peer] = turn

    def begin(self, held: Collection[str]) -> int:
        """Return the turn to publish for.

        It lies past our last, not before those of the offers that are held, and past the others that were heard.
        """
        heard = [turn if peer in held else turn + 1 for peer, turn in self._heard.items()]
        self.last = min(max([self.last + 1, *heard]), self.last + LEAP)
        self._heard.clear()
        return self.last
