"""Which rumours to tell: fresh ones some O(log n) times each, and more to whoever holds others to be here than we."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, islice

from decaf_node.mesh.rumours import (
    INCARNATIONS,
    KNOWN_AT_MOST,
    NEWS_AT_MOST,
    News,
    Rumour,
    Standing,
    is_later,
)

TELLINGS = 3  # times log2 of the number of members: how often a rumour is told before it is no news any more
HASHES = 2**16  # kept
BUCKETS = 64  # of members, by hash: in a mesh of 1024 one that a node does not know costs telling it of 16


class Gossip:
    """The newest rumour of each member that ``me`` tells of, and how often it was told.

    What is fresh is told in turn: first ``_untold``, the newest before the others, then ``_told``, where what was just
    told goes to the end. The numbers, and ``_agreed`` added, are how often the rumour was told, to one end or to both.
    """

    def __init__(self, me: str) -> None:
        self.incarnation = 0
        self._me = me
        self._schema = ""
        self._rumours: dict[str, Rumour] = {}
        self._untold: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._agreed = 0
        self._buckets: list[dict[str, None]] = [{} for _ in range(BUCKETS)]
        self._digest = array("Q", [0] * BUCKETS)
        self._cursor = _hash(me)  # nodes begin to tell from different places
        self._mark(me, 0, "")

    def get(self, peer: str) -> Rumour | None:
        """Return the newest rumour of the peer."""
        return self._rumours.get(peer)

    def learn(self, rumour: Rumour, fresh: bool = True) -> None:
        """Tell this of the member from now on; ``fresh``: to everyone."""
        if (old := self._rumours.get(rumour.peer)) is None:
            self._buckets[_bucket(rumour.peer)][rumour.peer] = None
        if old is None or _counts_as(old) != _counts_as(rumour):
            self._count(old)
            self._count(rumour)
        self._rumours[rumour.peer] = rumour
        if fresh:
            self._no_news(rumour.peer)
            self._untold[rumour.peer] = -self._agreed

    def forget(self, peer: str) -> None:
        """It is no member any more."""
        if (rumour := self._rumours.pop(peer, None)) is not None:
            self._count(rumour)
            del self._buckets[_bucket(peer)][peer]
            self._no_news(peer)

    def contradict(self, rumour: Rumour) -> bool:
        """Rise above a rumour of ourselves that is wrong, or of an earlier life; say whether that was needed."""
        stale = is_later(self.incarnation, rumour.incarnation)
        if stale or (rumour.incarnation == self.incarnation and rumour.standing is Standing.HERE):
            return False
        self._be((rumour.incarnation + 1) % INCARNATIONS, self._schema)
        return True

    def heard(self, theirs: News) -> None:
        """A peer has said this. If it holds the same to be here as we do, it knows all that is fresh."""
        self._agreed += theirs.digest == self._digest.tobytes()

    def train(self, schema: str) -> None:
        """What we train; empty while that is not known."""
        if schema != self._schema:
            self._be(self.incarnation, schema)

    def _be(self, incarnation: int, schema: str) -> None:
        self._mark(self._me, self.incarnation, self._schema)
        self.incarnation, self._schema = incarnation, schema
        self._mark(self._me, self.incarnation, self._schema)

    def tell(self, first: Rumour | None) -> News:
        """Return what to say to a peer that is probed, and count it as told. first: what it must hear in any case."""
        self._cursor += 1
        peers = self._least_told()
        for peer in peers:
            self._told[peer] = self._no_news(peer) + 1
        return self._news(first, peers)

    def _least_told(self) -> list[str]:
        """Return what to tell next; what was told often enough, and comes before it, is no news any more."""
        enough, next_ones, told_enough = self._enough() - self._agreed, list[str](), list[str]()
        for peer, told in self._in_turn():
            (next_ones if told < enough else told_enough).append(peer)
            if len(next_ones) == NEWS_AT_MOST:
                break
        for peer in told_enough:
            self._no_news(peer)
        return next_ones

    def _in_turn(self) -> Iterable[tuple[str, int]]:
        return chain(reversed(self._untold.items()), self._told.items())

    def _no_news(self, peer: str) -> int:
        """Take it from what is fresh; return its number there, if it had one."""
        told = self._untold.pop(peer, None)
        return self._told.pop(peer, 0) if told is None else told

    def answer(self, first: Rumour | None, theirs: News) -> News:
        """Return what to say to a peer that has said ``theirs``. Changes nothing."""
        if theirs.digest == self._digest.tobytes():
            return self._news(first)
        enough = self._enough() - self._agreed
        fresh = (peer for peer, told in self._in_turn() if told < enough)
        return self._news(first, list(islice(fresh, NEWS_AT_MOST)), self._some(theirs))

    def _enough(self) -> int:
        return TELLINGS * (len(self._rumours) + 1).bit_length()

    def _some(self, theirs: News) -> list[str]:
        """Return of whom to tell where the other end holds others to be here: of the buckets in which it does."""
        if len(theirs.digest) != BUCKETS * self._digest.itemsize:
            return []
        digest = array("Q", theirs.digest)
        places = ((self._cursor + i) % BUCKETS for i in range(BUCKETS))
        differ = (self._buckets[place] for place in places if digest[place] != self._digest[place])
        return list(islice(chain.from_iterable(differ), KNOWN_AT_MOST))

    def _news(self, first: Rumour | None, fresh: Sequence[str] = (), known: Sequence[str] = ()) -> News:
        rumours = [self._rumours[peer] for peer in fresh]
        rumours = rumours if first is None else [first, *rumours]
        more = tuple(self._rumours[peer] for peer in known)
        return News(self.incarnation, self._digest.tobytes(), tuple(rumours), more)

    def _count(self, rumour: Rumour | None) -> None:
        """Count what is told in the digest from now on, or no more."""
        if rumour is not None and rumour.standing is Standing.HERE:
            self._mark(rumour.peer, rumour.incarnation, rumour.schema)

    def _mark(self, peer: str, incarnation: int, schema: str) -> None:
        """Put the member into the digest, or take it out again. Of the schema counts that it is known."""
        self._digest[_bucket(peer)] ^= _mark(peer, incarnation, bool(schema))


def _counts_as(rumour: Rumour) -> tuple[bool, int, bool]:
    """Return what of the rumour is in the digest."""
    return rumour.standing is Standing.HERE, rumour.incarnation, bool(rumour.schema)


@lru_cache(maxsize=HASHES)
def _bucket(peer: str) -> int:
    return _hash(peer) % BUCKETS


@lru_cache(maxsize=HASHES)
def _mark(peer: str, incarnation: int, known: bool) -> int:
    return _hash(f"{incarnation} {known} {peer}")


def _hash(text: str) -> int:
    """Return 64 bits, the same at every node."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
