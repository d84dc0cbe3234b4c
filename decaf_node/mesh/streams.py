"""The streams of this node and what hangs on them: what is looked up and put away, but not what is decided."""

from __future__ import annotations

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Effect, Offer
from decaf_node.mesh.ledger import Ledger, Promise
from decaf_node.mesh.published import Published
from decaf_node.mesh.sessions import Fetching, Held, Inspecting, Opened, Promising, Session, digests_of
from decaf_node.mesh.unheard import Unheard


class Streams:
    """One session a peer, and the current snapshot. mixes: what our offers say."""

    def __init__(self, ledger: Ledger, unheard: Unheard) -> None:
        self.ledger = ledger
        self.unheard = unheard
        self.sessions: dict[str, Session] = {}
        self.published: Published | None = None
        self.mixes = 0

    def is_open(self, peer: str) -> bool:
        """Say whether an answer to a stream of ours is awaited."""
        return isinstance(self.sessions.get(peer), Opened)

    def held(self) -> dict[str, Offer]:
        """Return the offers that wait for our next snapshot."""
        sessions = sorted(self.sessions.items())
        return {peer: session.theirs for peer, session in sessions if isinstance(session, Held)}

    def hold(self, peer: str, offer: Offer) -> None:
        """Keep the stream that the peer opened until we publish."""
        self.sessions[peer] = Held(offer)

    def ours(self, peer: str = "") -> Offer | None:
        """Return what we have said to the peer on the stream that we opened, else what we say now.

        None before the first publishing.
        """
        match self.sessions.get(peer):
            case Opened(ours):
                return ours
        return None if self.published is None else self.published.offer(self.mixes)

    def half_open(self, peer: str) -> Promise | None:
        """Return what was promised to the peer in this period, and said, and not answered yet."""
        promise = self.ledger.sent_to(peer)
        return promise if promise is not None and promise.period == self.ledger.period else None

    def say_again(self, peer: str) -> list[Effect]:
        """Say again, on a stream that the peer has opened, what it may not have heard."""
        session = self.sessions.get(peer)
        before = session.said if isinstance(session, Held) else ()
        return [ev.SendReceipt(peer, receipt) for receipt in self.unheard.of(peer) if receipt not in before]

    def needed(self) -> frozenset[str]:
        """Return the snapshots whose bytes must be kept."""
        digests = set(self.ledger.digests())
        if self.published is not None:
            digests.add(self.published.snapshot.digest)
        return frozenset(digests.union(*(digests_of(session) for session in self.sessions.values())))

    # --- room ------------------------------------------------------------------------------------------------

    def is_crowded_out(self, peer: str) -> bool:
        """Say whether the edges that are promised, or on their way there, leave none to the peer in this period.

        The partner of this turn has its place whoever else came, or a node among others of unequal pace would starve.
        """
        published = self.published
        if published is None or len(published.slots) <= published.room or peer in published.partners:
            return False
        coming = {
            other for other, session in self.sessions.items() if isinstance(session, Opened | Fetching | Inspecting)
        }
        taken = published.promised | (coming & published.slots)
        return peer not in taken and len(taken) >= published.room

    def has_room_for(self, peer: str) -> bool:
        return self.published is not None and self.published.has_slot_for(peer) and not self.is_crowded_out(peer)

    # --- putting away ----------------------------------------------------------------------------------------

    def drop(self, peer: str) -> Session | None:
        """Forget the stream. A receipt that was not sent is no promise."""
        session = self.sessions.pop(peer, None)
        if isinstance(session, Promising):
            self.void(peer)
        return session

    def void(self, peer: str) -> None:
        """Nobody counts the edge that was promised to the peer: our receipt of it is not said again."""
        if (promise := self.ledger.promised(peer)) is not None:
            self.unheard.unsay(peer, promise.receipt)
        self.ledger.void(peer)

    def give_up(self, peer: str) -> None:
        if self.published is not None:
            self.published.given_up.add(peer)
