"""The stages of one edge stream, as this end sees it: one frozen dataclass each.

we open:      Opened ─ offer ─┐
                              ├─ Fetching ─ Inspecting ─ Promising ─ Promised ─ (complete)
they open:    Held ─ publish ─┘              (trainer)   (to disk)   (theirs is awaited)

a newcomer asks:   Serving
"""

from __future__ import annotations

from dataclasses import dataclass

from decaf_node.mesh.events import Offer, Receipt, Snapshot


@dataclass(frozen=True)
class Opened:
    """We opened it and have sent ``ours``; their offer is awaited."""

    ours: Offer


@dataclass(frozen=True)
class Held:
    """They opened it, and we have nothing to pair with their offer before we publish.

    said: what was said again on it already
    """

    theirs: Offer
    said: tuple[Receipt, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two snapshots that an edge pairs.

    degree: as the other end froze it
    since:  when ``own`` was published
    weight: what the graph prescribes for this edge, where both ends are at the same turn of one that does
    """

    own: Snapshot
    theirs: Snapshot
    degree: int
    since: float
    weight: float | None = None

    def is_of(self, receipt: Receipt) -> bool:
        """Say whether the other end's receipt is of this edge."""
        return (receipt.own, receipt.theirs) == (self.theirs.digest, self.own.digest)


@dataclass(frozen=True)
class Fetching:
    """Their snapshot is on its way. receipt: theirs, where it is here already."""

    pair: Pair
    receipt: Receipt | None = None


@dataclass(frozen=True)
class Inspecting:
    """The trainer looks at their snapshot."""

    pair: Pair
    receipt: Receipt | None = None


@dataclass(frozen=True)
class Promising:
    """Our receipt goes to disk."""

    pair: Pair
    receipt: Receipt | None = None


@dataclass(frozen=True)
class Promised:
    """Our receipt is sent; theirs is awaited."""

    pair: Pair


@dataclass(frozen=True)
class Serving:
    """A newcomer takes our snapshot as its state, or is about to ask for it: nothing counts."""

    own: Snapshot
    since: float


Paired = Fetching | Inspecting | Promising | Promised
Session = Opened | Held | Paired | Serving


def begun(session: Session) -> float:
    """Return since when the stream should come to its end; infinity while nothing is under way."""
    match session:
        case Fetching(pair) | Inspecting(pair) | Promising(pair) | Promised(pair):
            return pair.since
        case Serving(since=since):
            return since
    return float("inf")


def digests_of(session: Session) -> set[str]:
    """Return the snapshots that the stream needs."""
    match session:
        case Opened(Offer(snapshot=Snapshot(digest))) | Serving(Snapshot(digest)):
            return {digest}
        case Fetching(pair) | Inspecting(pair) | Promising(pair) | Promised(pair):
            return {pair.own.digest, pair.theirs.digest}
    return set()
