"""How long to wait for a neighbour, learned from arrivals.

Waited for is the median of a neighbour's delays plus a multiple of their spread (median absolute deviation), between
floor and ceiling of the policy, and bounded by three more things, so that nobody holds us to his pace:

- our own pace: never longer than the longest of our last rounds of training. A neighbour 20 times slower than we are
  thus costs one round's length at most, even where all its delays say that it takes long, and soon less;
- misses: who was not there in time several times in a row is waited for half as long each time more, down to the
  floor. A late edge still counts when it comes; an edge in time halves the count of misses;
- a neighbour never met yet is given a quarter of the ceiling, halved at each miss: founding nodes start seconds
  apart, and whoever waits for them founds the mesh with them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

WINDOW = 32  # delays remembered of a neighbour
SPREAD = 4.0  # k in median + k * MAD
PACES = 8  # own rounds remembered
OWN_ROUNDS = 1.0  # lengths of our own round that we wait at most for one that we have met
PATIENCE = 2  # misses in a row before the wait shrinks
UNMET = 0.25  # of the ceiling, for a neighbour of which nothing is known
MISSES = 30  # no use in counting further
HELD = 0.05  # of its length: a round that ended sooner than this after the mix was held up by it


@dataclass
class Arrivals:
    """What one neighbour's edges have taught.

    delays:  from our publishing to the edge's completion, in time or late
    learned: how long to wait by these alone; None before the first
    misses:  rounds in a row that it was waited for in vain
    """

    delays: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    learned: float | None = None
    misses: int = 0

    def arrived(self, delay: float) -> None:
        """An edge was complete ``delay`` after our publishing its snapshot."""
        self.delays.append(delay)
        middle = median(self.delays)
        spread = median(abs(other - middle) for other in self.delays)
        self.learned = middle + max(SPREAD * spread, middle / 2)  # few delays have no spread yet

    def met(self) -> None:
        """An edge was there when we mixed."""
        self.misses //= 2

    def missed(self) -> None:
        """We mixed without the neighbour, having waited for it."""
        self.misses = min(self.misses + 1, MISSES)


class Deadlines:
    """Knows this node's own pace, and from it and a neighbour's arrivals how long to wait."""

    def __init__(self, floor: float, ceiling: float, overlap: bool) -> None:
        self._floor = floor
        self._ceiling = ceiling
        self._overlap = overlap
        self._begun: float | None = None
        self._mixed: float | None = None
        self._paces: deque[float] = deque(maxlen=PACES)

    def started(self, now: float) -> None:
        """Training begins, at the start or again after a crash."""
        self._begun, self._mixed = now, None

    def mixed(self, now: float) -> None:
        """The trainer has been told to mix: without overlap its next round begins."""
        self._mixed = now
        if not self._overlap:
            self._begun = now

    def trained(self, now: float) -> None:
        """A round's training ended. With overlap its length shows only if the mix did not hold it up."""
        if self._begun is not None:
            length = now - self._begun
            held = self._overlap and self._mixed is not None and now - self._mixed <= HELD * length
            if not held:
                self._paces.append(length)
        self._begun = now

    def wait(self, arrivals: Arrivals) -> float:
        """Return how long after publishing such a neighbour is waited for."""
        if arrivals.learned is None:
            return self._within(UNMET * self._ceiling / 2**arrivals.misses)
        pace = OWN_ROUNDS * max(self._paces, default=self._ceiling)
        return self._within(min(arrivals.learned, pace) / 2 ** max(0, arrivals.misses - PATIENCE))

    def _within(self, wait: float) -> float:
        return min(max(wait, self._floor), self._ceiling)
