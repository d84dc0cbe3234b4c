"""How fast a peer may come and how slow it may be: calls a second, bytes of a snapshot a second, and back-off."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from decaf_node.errors import TryAgain

REMEMBERED = 1024  # peers; those heard last
WINDOW_SECONDS = 120.0  # over which the least rate counts: two of the largest chunks at the default rate take longer
FIRST_BACKOFF_SECONDS = 10.0
BACKOFF_SECONDS = 600.0

Clock = Callable[[], float]


@dataclass
class Bucket:
    """Calls that are left now; a second adds as many as are allowed in one."""

    left: float
    at: float


class Pace:
    """A token bucket for each peer: ``rate`` calls a second, and as many at once. clock: monotonic seconds."""

    def __init__(self, rate: int, clock: Clock = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, peer: str) -> None:
        """The peer makes a call. Raises TryAgain ``mesh.too-many-calls``."""
        now = self._clock()
        bucket = self._buckets.setdefault(peer, Bucket(self._rate, now))
        self._buckets.move_to_end(peer)
        bucket.left = min(self._rate, bucket.left + (now - bucket.at) * self._rate)
        bucket.at = now
        _bound(self._buckets)
        if bucket.left < 1:
            raise TryAgain("mesh.too-many-calls", f"It makes more than {self._rate} calls a second; slow down.")
        bucket.left -= 1


class Progress:
    """Whether bytes pass fast enough: ``rate`` a second at least, over ``window`` seconds."""

    def __init__(self, rate: int, window: float = WINDOW_SECONDS) -> None:
        self.window = window
        self._least = rate * window
        self._before: int | None = None

    def look(self, passed: int | None) -> bool:
        """Look once a window, at all that has passed so far (None: nothing is due); say whether it is too slow."""
        before, self._before = self._before, passed
        return before is not None and passed is not None and passed - before < self._least


@dataclass
class Grudge:
    """Until when a peer is refused, and how often it was at fault."""

    until: float
    times: int


class BackOff:
    """Peers that broke the protocol are refused for a while, each time twice as long. clock: monotonic seconds."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._grudges: OrderedDict[str, Grudge] = OrderedDict()

    def blame(self, peer: str) -> None:
        """The peer has broken the protocol now. Once it has behaved for long enough, it is the first time again."""
        now = self._clock()
        before = self._grudges.get(peer)
        times = 0 if before is None or now > before.until + BACKOFF_SECONDS else before.times
        pause = min(FIRST_BACKOFF_SECONDS * 2.0**times, BACKOFF_SECONDS)
        self._grudges[peer] = Grudge(now + pause, min(times + 1, 32))
        self._grudges.move_to_end(peer)
        _bound(self._grudges)

    def refuses(self, peer: str) -> bool:
        """Say whether the peer is refused now."""
        grudge = self._grudges.get(peer)
        return grudge is not None and self._clock() < grudge.until


def _bound(peers: OrderedDict[str, Bucket] | OrderedDict[str, Grudge]) -> None:
    while len(peers) > REMEMBERED:
        peers.popitem(last=False)
