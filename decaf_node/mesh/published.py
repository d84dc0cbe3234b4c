"""The current snapshot of this node, and what was frozen with it: neighbours, degree, and when to open to whom."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from decaf_node.mesh.events import Offer, Snapshot
from decaf_node.mesh.topology import Graph

TRIES = 3  # streams opened to one neighbour for one snapshot
RETRY = 1.0  # seconds before the second, doubled for each further one
KNOCK = 0.5  # of the wait for a neighbour that should open, before we open ourselves


@dataclass(frozen=True)
class Try:
    """When to open to a neighbour next, and how often it was tried."""

    at: float
    times: int = 0

    def opened(self) -> Try:
        return replace(self, times=self.times + 1)


@dataclass
class Published:
    """One snapshot of ours, from its publishing to the next.

    slots:    peers that may have an edge in this period: the neighbours of any turn, and those whose late edge goes on
    degree:   how many of them, at most
    partners: those of them with whom one is hoped for: the neighbours of this turn, late edges, and who came instead
    kept:     those with whom a stream of an earlier turn stays open, until they come to that turn
    turn:     of a graph that changes from turn to turn, else 0
    reminded: peers that may not have heard our receipts, and are no neighbours any more or no partners of this turn: a
              stream says the receipts again
    until:    when each of the slots is waited for no more, as learned so far
    promised: those of them that have had their promise
    settled:  those whose edge is complete
    given_up: those that are not waited for: broken, refused, gone, adopting, or served with it in an earlier life
    """

    snapshot: Snapshot
    schema: str
    at: float
    graph: Graph
    turn: int = 0
    slots: frozenset[str] = frozenset()
    degree: int = 0
    partners: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    reminded: set[str] = field(default_factory=set)
    until: dict[str, float] = field(default_factory=dict)
    promised: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)
    tries: dict[str, Try] = field(default_factory=dict)
    retired: bool = False

    def offer(self, mixes: int) -> Offer:
        """Return what we say first on an edge with this snapshot."""
        return Offer(self.schema, self.snapshot, self.snapshot.round, self.degree, mixes, turn=self.turn)

    @property
    def room(self) -> int:
        """Return how many edges may begin or go on in this period."""
        return self.degree + len(self.kept)

    def has_slot_for(self, peer: str) -> bool:
        """Say whether an edge with the peer may begin, if there is room."""
        return not self.retired and self.may_promise(peer)

    def is_early(self, peer: str, turn: int) -> bool:
        """Say whether an offer should wait until we publish for its turn: in this one another may still come."""
        return 0 < self.turn < turn and not {*self.awaited()} <= {peer}

    def is_at(self, turn: int) -> bool:
        """Say whether ``turn`` is the one for which this was published."""
        return 0 < self.turn == turn

    def may_promise(self, peer: str) -> bool:
        """Say whether the peer may still have its one promise of this period."""
        return peer in self.slots and peer not in self.promised

    def awaited(self) -> list[str]:
        """Return the peers whose edge may still come, sorted."""
        return sorted(self.partners - self.settled - self.given_up)

    def give_up_all(self) -> None:
        """The mix has begun: nobody is waited for any more."""
        self.given_up |= self.slots

    def retire(self) -> None:
        """No further edge begins with this snapshot: the state that it shows is lost."""
        self.retired = True
