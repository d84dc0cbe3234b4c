"""The changes of late, numbered without gaps, and how far each watcher has been told of them. No clock, no sockets.

A watcher is a place in what is kept, not a queue of its own: one that never reads costs a number. What has gone from
what is kept before it was told is a gap for this watcher, and then the state for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from decaf_node.daemon.reports import Change
from decaf_node.errors import TryAgain

KEPT = 256
WATCHERS = 32


@dataclass(frozen=True)
class Numbered:
    """A change; time: seconds since 1970."""

    sequence: int
    time: float
    change: Change


@dataclass(frozen=True)
class Missed:
    """So many changes cannot be told any more; the last that was told is ``sequence``."""

    sequence: int
    count: int


@dataclass(frozen=True)
class StateWanted:
    """The state is to be told, as it is after the change ``sequence``."""

    sequence: int


class Hub:
    """Takes changes and tells watchers. instance: of this start of the daemon; kept: most changes remembered."""

    def __init__(self, instance: str, kept: int = KEPT) -> None:
        self.instance = instance
        self.last = 0
        self._kept: deque[Numbered] = deque(maxlen=kept)
        self._watchers: set[Watcher] = set()

    @property
    def watchers(self) -> int:
        """How many watch now."""
        return len(self._watchers)

    def publish(self, time: float, change: Change) -> None:
        """Number the change, and wake who watches."""
        self.last += 1
        self._kept.append(Numbered(self.last, time, change))
        for watcher in self._watchers:
            watcher.wake()

    def open(self, wake: Callable[[], None], instance: str = "", after: int = 0, at_most: int = WATCHERS) -> Watcher:
        """Return a new watcher, which goes on after a change of this instance if that can be, else has the state first.

        wake: called when there is something to take, and must not wait. Raises TryAgain ``monitor.too-many-watchers``
        where ``at_most`` watch already.
        """
        if len(self._watchers) >= at_most:
            raise TryAgain(
                "monitor.too-many-watchers",
                f"{len(self._watchers)} others watch this node already; end one of them, or ask for its status.",
            )
        known = instance == self.instance and self.first - 1 <= after <= self.last
        watcher = Watcher(self, wake, after if known else None)
        self._watchers.add(watcher)
        return watcher

    def close(self, watcher: Watcher) -> None:
        """Forget the watcher."""
        self._watchers.discard(watcher)

    @property
    def first(self) -> int:
        """The oldest change that is kept; the next one where none is."""
        return self.last + 1 - len(self._kept)

    def at(self, sequence: int) -> Numbered:
        """Return a change that is kept."""
        return self._kept[sequence - self.first]


class Watcher:
    """How far one who watches has been told. told: None where the state is wanted."""

    def __init__(self, hub: Hub, wake: Callable[[], None], told: int | None) -> None:
        self.wake = wake
        self._hub = hub
        self._told = told

    @property
    def told(self) -> int:
        """The last change that was told."""
        return self._told or 0

    def take(self) -> Numbered | Missed | StateWanted | None:
        """Return what is to be told next; None if nothing is."""
        if self._told is None:
            self._told = self._hub.last
            return StateWanted(self._told)
        if self._told < self._hub.first - 1:
            missed = Missed(self._told, self._hub.last - self._told)
            self._told = None
            return missed
        if self._told == self._hub.last:
            return None
        self._told += 1
        return self._hub.at(self._told)
