"""What is known of one peer."""

from __future__ import annotations

from dataclasses import dataclass

from decaf_node.mesh.deadlines import Arrivals
from decaf_node.mesh.events import Receipt

NEVER = float("-inf")
FOR_EVER = float("inf")
SAID_AT_MOST = 3  # receipts said again: a peer that has heard none of so many has been away for long


@dataclass(slots=True)
class Member:
    """One peer. What decides whether it is here is changed by ``Membership`` alone, which keeps account of it."""

    peer: str
    name: str = ""
    schema: str = ""  # empty: not known yet, its trainer is loading
    round: int = 0
    addresses: tuple[str, ...] = ()
    heard: float | None = None
    quiet_since: float = NEVER  # since when we wait to hear it: not at all (infinity) while others look after it
    gone_at: float = FOR_EVER  # when a goodbye, or a rumour that it is gone, counts
    silences: int = 0
    incarnation: int = 0  # what it said last of itself
    accused: bool = False  # we have told that it is lost, and not heard it since
    problem: str = ""
    probed: float = NEVER
    declined_until: float = NEVER  # it wants no edges: no neighbour until then
    refused_until: float = NEVER  # a snapshot of its, or of ours, was no good: no edge until then
    refusals: int = 0
    newcomer: bool = False  # its last offer said that it has never mixed
    said: tuple[Receipt, ...] = ()  # our receipts that it may not have heard, oldest first
    weight: float | None = None
    distance: float | None = None
    mixes: int = 0
    learned: Arrivals | None = None

    def say(self, receipt: Receipt) -> None:
        """Our receipt is on its way; until the peer shows that it has heard it, it is said again on every stream."""
        self.said = (*self.said, receipt)[-SAID_AT_MOST:]

    def unsay(self, receipt: Receipt) -> None:
        """The edge counts nowhere."""
        self.said = tuple(said for said in self.said if said != receipt)

    @property
    def arrivals(self) -> Arrivals:
        """Return what its edges have taught. Most of many members never have one, and need no room for it."""
        if self.learned is None:
            self.learned = Arrivals()
        return self.learned
