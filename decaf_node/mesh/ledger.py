"""What this node has promised and owes: receipts, edges to be mixed, edges mixed and not saved yet.

An edge goes through it like this: a receipt is written to disk (``promise``), then sent (``sent``); from then on the
other end may count the edge at any time, so it is *half-open* until the other's receipt comes (``settle``). Then it is
``ready`` for the next mix, then ``unsaved`` until the state that holds it is durable. A crash of the trainer loses the
mixes since the last save: those edges are mixed ``again``.

Weights: a period is the time from one publishing to the next. The reserve of a period is what was promised before it
and is not mixed yet; no promise of the period may take more than what is ``left`` of 1 by the reserve and the period's
promises so far. (Metropolis shares never come near: each of at most ``degree`` takes at most (1 - reserve) /
(1 + degree). Weights that a graph prescribes may.) So what is promised and not mixed never sums above 1, and neither
do the fresh edges of any mix. (Edges mixed again were part of such a sum when they were first mixed; they stay as they
were promised.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from decaf_node.mesh.events import Edge, Receipt, Snapshot
from decaf_node.mesh.weights import ROUNDING

HALF_OPEN_PERIODS = 16  # a promise not answered within so many rounds of ours, and its patience, is given up

EARLIER = float("-inf")  # published in an earlier life

Key = tuple[str, str]  # peer, digest of our snapshot: an edge is used once


@dataclass(frozen=True)
class Promise:
    """Our receipt, written and perhaps sent. since: when its own snapshot was published."""

    peer: str
    receipt: Receipt
    period: int
    since: float
    sent: bool = False

    def edge(self, weight: float) -> Edge:
        return Edge(self.peer, self.receipt.own, self.receipt.theirs, weight)

    def pairs(self, own: Snapshot, theirs: Snapshot) -> bool:
        """Say whether it is of these two snapshots."""
        return (own.digest, theirs.digest) == (self.receipt.own, self.receipt.theirs)

    def is_answered_by(self, theirs: Receipt) -> bool:
        """Say whether the other end's receipt makes this edge count."""
        return self.sent and (theirs.own, theirs.theirs) == (self.receipt.theirs, self.receipt.own)


class Ledger:
    """The books of one node, opened with what an earlier life has left: edges to be mixed again, and promises."""

    def __init__(self, unsaved: tuple[Edge, ...] = (), promised: tuple[Edge, ...] = ()) -> None:
        self.period = 0
        self.reserve = 0.0
        self.left = 1.0
        self.ready: tuple[Edge, ...] = ()
        self.again: tuple[Edge, ...] = unsaved
        self.unsaved: tuple[Edge, ...] = ()
        self._promises: dict[str, Promise] = {
            edge.peer: Promise(edge.peer, Receipt(edge.own, edge.theirs, edge.weight), 0, EARLIER, sent=True)
            for edge in promised
        }
        self._written: dict[Key, Edge] = {_key(edge): edge for edge in (*self.again, *promised)}
        self._saving: tuple[Edge, ...] = ()

    def publish(self, expired: float) -> list[Promise]:
        """Begin a period: give up what was never answered, return that, and keep in reserve what is still owed.

        expired: promises with snapshots published before it may be given up.
        """
        self.period += 1
        promises = self._promises.values()
        old = [one for one in promises if self.period - one.period > HALF_OPEN_PERIODS and one.since < expired]
        for promise in old:
            del self._promises[promise.peer]
        self.reserve = self.owed()
        self.left = 1.0 - self.reserve
        return old

    def promise(self, peer: str, receipt: Receipt, since: float) -> None:
        """Our receipt goes to disk. One of an earlier stream with the peer that it never answered is void:

        it has said its own receipts again before its snapshot came, so it never will.
        """
        assert receipt.weight <= self.left, "more is promised than is left"
        self.left -= receipt.weight
        promise = Promise(peer, receipt, self.period, since)
        self._promises[peer] = promise
        self._written[_key(promise.edge(receipt.weight))] = promise.edge(receipt.weight)

    def sent(self, peer: str) -> None:
        """The receipt is on disk and on its way."""
        self._promises[peer] = replace(self._promises[peer], sent=True)

    def promised(self, peer: str) -> Promise | None:
        """Return what was promised to the peer and is not settled."""
        return self._promises.get(peer)

    def sent_to(self, peer: str) -> Promise | None:
        """Return what was promised to the peer, and said, and is not settled."""
        promise = self._promises.get(peer)
        return promise if promise is not None and promise.sent else None

    def unanswered(self) -> frozenset[str]:
        """Return the peers that have been sent a promise and have not settled it."""
        return frozenset(peer for peer, promise in self._promises.items() if promise.sent)

    def void(self, peer: str) -> None:
        """Nobody counts this edge."""
        self._promises.pop(peer, None)

    def settle(self, peer: str, theirs: Receipt) -> Promise:
        """Both receipts are here: the edge counts, with the smaller weight. Returns what we had promised."""
        promise = self._promises.pop(peer)
        assert promise.sent, "settled before our receipt was sent"
        self.ready += (promise.edge(min(promise.receipt.weight, theirs.weight)),)
        return promise

    def take(self) -> tuple[Edge, ...]:
        """Return the edges of the next mix; they are ready no more."""
        assert sum((edge.weight for edge in self.ready), 0.0) <= 1.0 + ROUNDING, "the weights of a round sum above 1"
        edges = self.again + self.ready
        self.ready, self.again = (), ()
        return edges

    def mixed(self, edges: Iterable[Edge]) -> None:
        """The trainer's state holds these edges now."""
        self.unsaved += tuple(edges)

    def lost(self, mixing: Iterable[Edge]) -> None:
        """The trainer's state is lost: all since the last save is to be mixed again."""
        self.again = self.unsaved + tuple(mixing) + self.again
        self.unsaved = ()

    def begin_save(self, current: str) -> tuple[Edge, ...]:
        """Return the edges whose receipts the state to be saved makes needless: mixed, void or given up.

        What is void with our ``current`` snapshot may be promised anew while the save is under way, and is left.
        """
        owed = {_key(promise.edge(0.0)) for promise in self._promises.values()}
        owed |= {_key(edge) for edge in (*self.ready, *self.again)}
        mixed = {_key(edge) for edge in self.unsaved}
        self._saving = tuple(
            edge for key, edge in self._written.items() if key in mixed or (key not in owed and edge.own != current)
        )
        return self._saving

    def saved(self) -> None:
        """What ``begin_save`` returned is durable."""
        keys = {_key(edge) for edge in self._saving}
        self._saving = ()
        self.unsaved = tuple(edge for edge in self.unsaved if _key(edge) not in keys)
        self.again = tuple(edge for edge in self.again if _key(edge) not in keys)
        for key in keys:
            self._written.pop(key, None)

    def peers_of(self, own: str) -> frozenset[str]:
        """Return the peers that have had an edge, or the promise of one, with our snapshot ``own``."""
        return frozenset(peer for peer, digest in self._written if digest == own)

    def digests(self) -> frozenset[str]:
        """Return the snapshots that are still needed for mixing, or for mixing again."""
        edges = [*self.ready, *self.again, *self.unsaved, *(p.edge(0.0) for p in self._promises.values())]
        return frozenset(digest for edge in edges for digest in (edge.own, edge.theirs))

    @property
    def size(self) -> int:
        """How many receipts are written and not needless yet."""
        return len(self._written)

    def owed(self) -> float:
        """Return the sum of the weights that are promised or ready, and not mixed yet."""
        if not self._promises and not self.ready:
            return 0.0
        owed = sum((promise.receipt.weight for promise in self._promises.values()), 0.0)
        return owed + sum((edge.weight for edge in self.ready), 0.0)


def _key(edge: Edge) -> Key:
    return edge.peer, edge.own
