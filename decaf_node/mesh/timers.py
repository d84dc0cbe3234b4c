"""A time for each of many names, and whose comes first: O(log n) a change, however many names there are."""

from __future__ import annotations

from heapq import heappop, heappush

INFINITY = float("inf")


def earlier(one: float | None, other: float | None) -> float | None:
    """Return the earlier of two times, of which either may be none."""
    if one is None or other is None:
        return other if one is None else one
    return one if one <= other else other


class Timers:
    """Times by name.

    Invariant: of every name with a time the heap holds an entry at or before it, noted in ``_entries``. Any other
    entry is left over, and goes when it comes to the top; so putting a time off costs nothing before the old one.
    ``_first`` is the earliest time unless ``_stale``.
    """

    def __init__(self) -> None:
        self._first: float | None = None
        self._stale = False
        self._times: dict[str, float] = {}
        self._entries: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def set(self, name: str, time: float) -> None:
        """Give the name this time instead of any other; infinity: none."""
        before = self._times.get(name, INFINITY)
        self._stale = self._stale or before == self._first
        if time == INFINITY:
            if before != INFINITY:
                del self._times[name]
            return
        self._times[name] = time  # in its place: a dict into which is put what was taken out grows, and is built anew
        if self._first is None or time < self._first:
            self._first = time
        if time < before and time < self._entries.get(name, INFINITY):
            self._entries[name] = time
            heappush(self._heap, (time, name))

    def get(self, name: str) -> float:
        """Return the time of the name; infinity if it has none."""
        return self._times.get(name, INFINITY)

    def first(self) -> float | None:
        """Return the earliest time; None if no name has one."""
        if self._stale:
            self._first, self._stale = self._find_first(), False
        return self._first

    def _find_first(self) -> float | None:
        heap, entries = self._heap, self._entries
        while heap:
            entry, name = heap[0]
            if entries.get(name) == entry:
                time = self._times.get(name)
                if time == entry:
                    return entry
                del entries[name]
                if time is not None:
                    entries[name] = time
                    heappush(heap, (time, name))
            heappop(heap)
        return None

    def pop(self, now: float) -> list[str]:
        """Return the names whose time has come, sorted; they have none any more."""
        names: list[str] = []
        if (first := self.first()) is None or first > now:
            return names
        while (first := self._find_first()) is not None and first <= now:
            _, name = heappop(self._heap)
            del self._entries[name], self._times[name]
            names.append(name)
        self._first = first
        return sorted(names)
