"""Which rumours to tell: fresh ones some O(log n) times each, and more to whoever holds others to be here than we."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
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

    ``_fresh`` begins with what was told least: a new rumour goes to the front, a told one to the end. Its numbers, and
    ``_agreed`` added, are how often the rumour was told, to one end or to both.
    """

    def __init__(self, me: str) -> None:
        self.incarnation = 0
        self._me = me
        self._schema = ""
        self._rumours: dict[str, Rumour] = {}
        self._fresh: OrderedDict[str, int] = OrderedDict()
        self._agreed = 0
        self._buckets: list[dict[str, None]] = [{} for _ in range(BUCKETS)]
        self._digest = [0] * BUCKETS
        self._cursor = _hash(me)  # nodes begin to tell from different places
        self._mark(me, 0, "")

    def get(self, peer: str) -> Rumour | None:
        """Return the newest rumour of the peer."""
        return self._rumours.get(peer)

    def learn(self, rumour: Rumour, fresh: bool = True) -> None:
        """Tell this of the member from now on; ``fresh``: to everyone."""
        if (old := self._rumours.get(rumour.peer)) is None:
            self._buckets[_bucket(rumour.peer)][rumour.peer] = None
        else:
            self._count(old)
        self._rumours[rumour.peer] = rumour
        self._count(rumour)
        if fresh:
            self._fresh[rumour.peer] = -self._agreed
            self._fresh.move_to_end(rumour.peer, last=False)

    def forget(self, peer: str) -> None:
        """It is no member any more."""
        if (rumour := self._rumours.pop(peer, None)) is not None:
            self._count(rumour)
            del self._buckets[_bucket(peer)][peer]
            self._fresh.pop(peer, None)

    def contradict(self, rumour: Rumour) -> bool:
        """Rise above a rumour of ourselves that is wrong, or of an earlier life; say whether that was needed."""
        stale = is_later(self.incarnation, rumour.incarnation)
        if stale or (rumour.incarnation == self.incarnation and rumour.standing is Standing.HERE):
            return False
        self._be((rumour.incarnation + 1) % INCARNATIONS, self._schema)
        return True

    def heard(self, theirs: News) -> None:
        """A peer has said this. If it holds the same to be here as we do, it knows all that is fresh."""
        self._agreed += list(theirs.digest) == self._digest

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
            self._fresh[peer] += 1
            self._fresh.move_to_end(peer)
        return self._news(first, peers)

    def _least_told(self) -> list[str]:
        """Return what to tell next; what was told often enough, and comes before it, is no news any more."""
        enough, next_ones, told_enough = self._enough() - self._agreed, list[str](), list[str]()
        for peer, told in self._fresh.items():
            (next_ones if told < enough else told_enough).append(peer)
            if len(next_ones) == NEWS_AT_MOST:
                break
        for peer in told_enough:
            del self._fresh[peer]
        return next_ones

    def answer(self, first: Rumour | None, theirs: News) -> News:
        """Return what to say to a peer that has said ``theirs``. Changes nothing."""
        if list(theirs.digest) == self._digest:
            return self._news(first)
        enough = self._enough()
        fresh = (peer for peer, told in self._fresh.items() if told + self._agreed < enough)
        return self._news(first, list(islice(fresh, NEWS_AT_MOST)), self._some(theirs))

    def _enough(self) -> int:
        return TELLINGS * (len(self._rumours) + 1).bit_length()

    def _some(self, theirs: News) -> list[str]:
        """Return of whom to tell where the other end holds others to be here: of the buckets in which it does."""
        if len(theirs.digest) != BUCKETS:
            return []
        places = ((self._cursor + i) % BUCKETS for i in range(BUCKETS))
        differ = (self._buckets[place] for place in places if theirs.digest[place] != self._digest[place])
        return list(islice(chain.from_iterable(differ), KNOWN_AT_MOST))

    def _news(self, first: Rumour | None, fresh: Sequence[str] = (), known: Sequence[str] = ()) -> News:
        rumours = [self._rumours[peer] for peer in fresh]
        rumours = rumours if first is None else [first, *rumours]
        more = tuple(self._rumours[peer] for peer in known)
        return News(self.incarnation, tuple(self._digest), tuple(rumours), more)

    def _count(self, rumour: Rumour) -> None:
        """Count what is told in the digest from now on, or no more."""
        if rumour.standing is Standing.HERE:
            self._mark(rumour.peer, rumour.incarnation, rumour.schema)

    def _mark(self, peer: str, incarnation: int, schema: str) -> None:
        """Put the member into the digest, or take it out again. Of the schema counts that it is known."""
        self._digest[_bucket(peer)] ^= _mark(peer, incarnation, bool(schema))


@lru_cache(maxsize=HASHES)
def _bucket(peer: str) -> int:
    return _hash(peer) % BUCKETS


@lru_cache(maxsize=HASHES)
def _mark(peer: str, incarnation: int, known: bool) -> int:
    return _hash(f"{incarnation} {known} {peer}")


def _hash(text: str) -> int:
    """Return 64 bits, the same at every node."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
