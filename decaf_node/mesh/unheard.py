"""Our receipts that their peers may not have heard: said again on every stream, until the peer shows that it has heard.

They outlive the mix of their edge, a peer's time as our neighbour, and a restart (``events.SaveRound.unheard``): what
was said last on a stream that broke decides whether the edge counts at both ends.
"""

from __future__ import annotations

from decaf_node.mesh.events import Edge, Receipt

SAID_AT_MOST = 3  # receipts said again to one peer: one that has heard none of so many has been away for long


class Unheard:
    """Receipts by peer, oldest first. limit: most peers; of more, the one goes that was last told anything first."""

    def __init__(self, limit: int, edges: tuple[Edge, ...] = ()) -> None:
        self._limit = limit
        self._said: dict[str, tuple[Receipt, ...]] = {}
        for edge in edges:
            self.say(edge.peer, Receipt(edge.own, edge.theirs, edge.weight))

    def of(self, peer: str) -> tuple[Receipt, ...]:
        """Return what to say again to the peer."""
        return self._said.get(peer, ())

    def peers(self) -> frozenset[str]:
        """Return those that may not have heard everything."""
        return frozenset(self._said)

    def edges(self) -> tuple[Edge, ...]:
        """Return all of it, with the weights that we proposed."""
        said = self._said.items()
        return tuple(Edge(peer, one.own, one.theirs, one.weight) for peer, receipts in said for one in receipts)

    def say(self, peer: str, receipt: Receipt) -> None:
        """Our receipt is on its way."""
        self.unsay(peer, receipt)
        self._said[peer] = (*self._said.pop(peer, ()), receipt)[-SAID_AT_MOST:]
        if len(self._said) > self._limit:
            del self._said[next(iter(self._said))]

    def unsay(self, peer: str, receipt: Receipt) -> None:
        """The edge counts nowhere."""
        pair = (receipt.own, receipt.theirs)
        self._keep(peer, tuple(said for said in self.of(peer) if (said.own, said.theirs) != pair))

    def heard(self, peer: str, but: str = "") -> None:
        """The peer has heard everything, except a receipt of our snapshot ``but``."""
        self._keep(peer, tuple(said for said in self.of(peer) if said.own == but))

    def _keep(self, peer: str, receipts: tuple[Receipt, ...]) -> None:
        if receipts:
            self._said[peer] = receipts
        else:
            self._said.pop(peer, None)
