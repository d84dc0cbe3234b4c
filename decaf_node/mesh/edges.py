"""The edges of this node: one stream a neighbour, from the offer to both receipts.

An edge belongs to the pair of snapshots that were current when both offers had met, and goes on until it is complete,
however many rounds that takes; in each period of ours (from one publishing to the next) a peer gets at most one
promise. On every new stream each end first says again the receipts that the other may not have heard, so that an edge
whose last message was lost still counts at both ends.
"""

from __future__ import annotations

from random import Random

from decaf_node.mesh import events as ev
from decaf_node.mesh import objections
from decaf_node.mesh.adoption import must_adopt
from decaf_node.mesh.clipping import LEAST, LONE, Apart, Clipping
from decaf_node.mesh.deadlines import Deadlines
from decaf_node.mesh.events import Effect, Offer, Receipt, Snapshot
from decaf_node.mesh.ledger import EARLIER, Ledger
from decaf_node.mesh.membership import Membership
from decaf_node.mesh.objections import Refusal
from decaf_node.mesh.openings import Openings
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.published import Published
from decaf_node.mesh.scoring import Scoring
from decaf_node.mesh.sessions import (
    Fetching,
    Held,
    Inspecting,
    Opened,
    Pair,
    Paired,
    Promised,
    Promising,
    Serving,
    begun,
)
from decaf_node.mesh.streams import Streams
from decaf_node.mesh.topology import Graph
from decaf_node.mesh.turns import Turns
from decaf_node.mesh.unheard import Unheard
from decaf_node.mesh.weights import share

HALF_OPEN_CEILINGS = 5  # wait ceilings that an unanswered promise is kept at least
STALLED_CEILINGS = 10  # wait ceilings after which a stream that brings no end is given up
LEAST_WEIGHT = 1e-9  # an edge that would count for less is not worth its bytes


class Edges(Streams):
    """All streams of the node ``me``. schema: ours; trainer: whether one is there to inspect."""

    def __init__(
        self,
        me: str,
        policy: Policy,
        members: Membership,
        deadlines: Deadlines,
        random: Random,
        ledger: Ledger,
        unheard: Unheard,
    ) -> None:
        super().__init__(ledger, unheard)
        self.schema = ""
        self.trainer = False
        self._me = me
        self._policy = policy
        self._members = members
        self._turns = Turns()
        self._clipping = Clipping()
        self._scoring = Scoring()
        self._openings = Openings(me, members, deadlines, random, self)

    # --- publishing ------------------------------------------------------------------------------------------

    def publish(self, snapshot: Snapshot, alone: bool, now: float) -> None:
        """Freeze neighbours and degree with this snapshot. ``answer_held`` and ``due`` then begin its edges."""
        for given_up in self.ledger.publish(expired=now - HALF_OPEN_CEILINGS * self._policy.wait_ceiling):
            self.unheard.unsay(given_up.peer, given_up.receipt)
        graph = self._members.graph(self.schema, now, self.held())
        turn = self._turns.begin(self.held()) if graph.varies else 0
        around = set() if alone else {*graph.candidates(self._me)}
        of_turn = {*graph.neighbours(self._me, turn)}
        partners = around & (of_turn or self._missed())
        late = {peer for peer, session in self.sessions.items() if isinstance(session, Fetching | Inspecting)}
        kept = {peer for peer in around - of_turn if turn and self.is_open(peer)}
        degree = len(late) + min(graph.capacity(self._me), len(around - late))
        slots = frozenset(late | around)
        published = Published(snapshot, self.schema, now, graph, turn, slots, degree, late | partners, kept)
        published.reminded = {*self.unheard.peers()} - published.slots
        published.reminded |= self.ledger.unanswered() - published.partners
        published.promised = {*self.ledger.peers_of(snapshot.digest)} & published.slots - late
        published.given_up = published.promised - self.ledger.unanswered()  # a snapshot repeated: used with them before
        self.published = published
        self._openings.publish(published)

    def due(self, now: float) -> list[Effect]:
        """Open what is to be opened now."""
        return self._openings.due(now)

    @property
    def opening(self) -> float | None:
        """When ``due``, which was called before, has something next."""
        return self._openings.next

    def _missed(self) -> set[str]:
        """Return the partners of the last turn that did not come: in a turn without a partner they are waited for."""
        return set() if self.published is None else self.published.partners - self.published.settled

    def renew(self, now: float, again: bool) -> list[Effect]:
        """Give up the streams that nobody has answered, and those on which nothing comes to an end.

        ``again``: ``due`` opens them at once, with the new snapshot; a newcomer that adopts first does not. Those of
        earlier turns stay: a slow peer answers when it comes to that turn.
        """
        published = self.published
        assert published is not None
        oldest = now - STALLED_CEILINGS * self._policy.wait_ceiling
        opened = [peer for peer in sorted(self.sessions) if self.is_open(peer) and peer not in published.kept]
        stalled = [peer for peer, session in sorted(self.sessions.items()) if begun(session) < oldest]
        for peer in (*opened, *stalled):
            self.drop(peer)
        same = again and not published.turn  # else another turn's partner may come first
        close = [*stalled, *(peer for peer in opened if not (same and published.has_slot_for(peer)))]
        return [ev.CloseEdge(peer) for peer in close]

    def answer_held(self, now: float) -> list[Effect]:
        """Answer the offers that waited for our snapshot."""
        effects: list[Effect] = []
        for peer, offer in sorted(self.held().items(), key=lambda held: held[1].turn):  # who is behind goes first
            effects += self._take_in(peer, offer, now)
        return effects

    def candidates(self, now: float) -> tuple[str, ...]:
        """Return the peers that may be our neighbours, in this turn or another."""
        return self.graph(now).candidates(self._me)

    def graph(self, now: float) -> Graph:
        """Return who mixes with whom, as we see it."""
        return self._members.graph(self.schema, now, self.held())

    # --- offers ----------------------------------------------------------------------------------------------

    def offered(self, peer: str, offer: Offer, incoming: bool, now: float) -> list[Effect]:
        """The peer's offer came: pair it, hold it, serve it, or refuse it."""
        if (refusal := self._objection(peer, offer, now)) is not None:
            return self.turn_away(peer, refusal, now) if incoming else self.refuse(peer, refusal, now)
        self._turns.hear(peer, offer.turn)
        if incoming:
            return self._serve(peer, now) if offer.adopt else self._take_in(peer, offer, now)
        match self.sessions.get(peer):
            case Opened(ours) if offer.adopt:
                return self._let_adopt(peer, ours, now)
            case Opened() if self.published is not None and peer not in self.published.slots:
                return self.refuse(peer, objections.not_a_neighbour(self._policy.topology), now)
            case Opened(ours) if last := self._go_on(peer, ours, offer):
                return last
            case Opened() if self.published is not None and peer in self.published.promised:
                return self._give_way(peer)
            case Opened() if self._is_used(peer, offer):
                return self.refuse(peer, objections.USED_SNAPSHOT, now)
            case Opened(ours):
                return self._pair(peer, ours, offer, now)
        return []

    def _objection(self, peer: str, offer: Offer, now: float) -> Refusal | None:
        member = self._members.get(peer)
        if member is None:
            return objections.FULL
        return objections.object_to(offer, member, self.schema, self._policy.snapshot_limit_bytes, now)

    def _take_in(self, peer: str, offer: Offer, now: float) -> list[Effect]:
        """Answer an offer on the peer's stream, or hold it."""
        if (refusal := self._objection(peer, offer, now)) is not None:
            return self.turn_away(peer, refusal, now)
        ours = self.ours()
        if ours is not None and must_adopt(offer, ours, absent=False):
            return [*self._answer(peer, ours), *self._let_adopt(peer, ours, now)]
        published = self.published
        if ours is not None and (last := self._go_on(peer, ours, offer)):
            return [*self._answer(peer, ours), *last]
        if self._is_used(peer, offer):
            return self.turn_away(peer, objections.USED_SNAPSHOT, now)
        early = published is not None and published.is_early(peer, offer.turn)
        if ours is not None and not early and self.has_room_for(peer):
            return [*self._answer(peer, ours), *self._pair(peer, ours, offer, now)]
        graph = self._members.graph(self.schema, now, {*self.held(), peer})
        if self.schema and peer not in graph.candidates(self._me):
            return self.turn_away(peer, objections.not_a_neighbour(self._policy.topology), now)
        if published is not None and published.is_at(offer.turn):
            return self.turn_away(peer, objections.NO_ROOM, now)
        again = self.say_again(peer)
        self.sessions[peer] = Held(offer, self.unheard.of(peer))
        return again

    def _is_used(self, peer: str, offer: Offer) -> bool:
        """Say whether it is an old one: an edge with it counts already, and would a second time."""
        member = self._members.get(peer)
        return member is not None and offer.snapshot is not None and member.has_used(offer.snapshot.digest)

    def _pair(self, peer: str, ours: Offer, theirs: Offer, now: float) -> list[Effect]:
        assert self.published is not None
        assert ours.snapshot is not None
        assert theirs.snapshot is not None
        if must_adopt(theirs, ours, absent=False):
            return self._let_adopt(peer, ours, now)
        published = self.published
        weight = published.graph.weight(self._me, peer, ours.turn) if ours.turn == theirs.turn else None
        pair = Pair(ours.snapshot, theirs.snapshot, theirs.degree, published.at, weight)
        published.partners.add(peer)
        self.sessions[peer] = Fetching(pair)
        return [ev.FetchSnapshot(peer, theirs.snapshot)]

    def _go_on(self, peer: str, ours: Offer, theirs: Offer) -> list[Effect]:
        """The stream on which we have promised broke, and another is up: go on there, if it is of the same pair.

        It may have stayed open since an earlier period (a slow partner's): the promise is of that period then.
        The peer may have heard our receipt before it could take it, so it is said last as well.
        """
        assert ours.snapshot is not None
        promise = self.ledger.sent_to(peer)
        if promise is None or theirs.snapshot is None or not promise.pairs(ours.snapshot, theirs.snapshot):
            return []
        self.sessions[peer] = Promised(Pair(ours.snapshot, theirs.snapshot, theirs.degree, promise.since))
        self.unheard.say(peer, promise.receipt)
        return [ev.SendReceipt(peer, promise.receipt)]

    def _give_way(self, peer: str) -> list[Effect]:
        """The stream is of use no more in this period: let the peer open one for the next."""
        assert self.published is not None
        self.drop(peer)
        self.published.tries.pop(peer, None)
        return [ev.CloseEdge(peer)]

    def _answer(self, peer: str, ours: Offer) -> list[Effect]:
        return [*self.say_again(peer), ev.AnswerEdge(peer, ours)]

    def turn_away(self, peer: str, refusal: Refusal, now: float) -> list[Effect]:
        """Refuse a stream that the peer has just opened; what was promised before is said again all the same."""
        return [*self.say_again(peer), *self.refuse(peer, refusal, now)]

    def _serve(self, peer: str, now: float) -> list[Effect]:
        ours = self.ours()
        if ours is None:
            return self.turn_away(peer, objections.NO_SNAPSHOT, now)
        return [*self._answer(peer, ours), *self._let_adopt(peer, ours, now)]

    def _let_adopt(self, peer: str, ours: Offer, now: float) -> list[Effect]:
        """The peer takes our state instead of mixing: there is nothing to wait for."""
        assert ours.snapshot is not None
        self.sessions[peer] = Serving(ours.snapshot, now)
        self.give_up(peer)
        return []

    # --- snapshots and receipts ------------------------------------------------------------------------------

    def snapshot_received(self, peer: str, digest: str) -> list[Effect]:
        """The peer's snapshot is here and whole: have it inspected."""
        match self.sessions.get(peer):
            case Fetching(pair, receipt) if pair.theirs.digest == digest:
                self.sessions[peer] = Inspecting(pair, receipt)
                return self._inspect(peer, pair)
        return []

    def snapshot_refused(self, event: ev.SnapshotRefused, now: float) -> list[Effect]:
        """What came from the peer is of no use."""
        match self.sessions.get(event.peer):
            case Fetching(pair) if pair.theirs.digest == event.digest:
                return self.refuse(event.peer, objections.bad_content("mesh.bad-snapshot", event.problem), now)
        return []

    def inspected(self, event: ev.SnapshotInspected, now: float) -> list[Effect]:
        """The trainer has looked at the peer's snapshot: promise the edge, or refuse it."""
        match self.sessions.get(event.peer):
            case Inspecting(pair, receipt) if pair.theirs.digest == event.digest:
                if (problem := objections.object_to_inspected(event)) is not None:
                    return self.refuse(event.peer, problem, now)
                factor = self._clip(event)
                if (member := self._members.get(event.peer)) is not None:
                    member.distance, member.plain_distance = event.distance, event.plain_distance
                    member.harm, member.clip_factor = event.harm, factor
                return self._promise(event.peer, pair, receipt, factor, now)
        return []

    def _clip(self, event: ev.SnapshotInspected) -> float:
        """Return how much of its weight the edge may count for, by how far off it is and what harm it does."""
        assert self.published is not None
        if self._policy.robust == "off":
            return 1.0
        kinds = [Apart(event.distance, event.norm), Apart(event.plain_distance, event.plain_norm)]
        lone = self.published.slots <= {event.peer}
        factor = self._clipping.factor(event.peer, kinds, lone, self.ledger.period)
        if self._policy.robust == "score":
            factor *= self._scoring.factor(event.peer, event.harm, self.ledger.period)
        return max(factor, LONE if lone else LEAST)

    def inspect_again(self) -> list[Effect]:
        """A new trainer is there: it has to look at what the old one left."""
        sessions = sorted(self.sessions.items())
        return [
            effect
            for peer, session in sessions
            if isinstance(session, Inspecting)
            for effect in self._inspect(peer, session.pair)
        ]

    def _inspect(self, peer: str, pair: Pair) -> list[Effect]:
        return [ev.InspectSnapshot(peer, pair.theirs.digest, pair.own.digest)] if self.trainer else []

    def _promise(self, peer: str, pair: Pair, receipt: Receipt | None, factor: float, now: float) -> list[Effect]:
        published = self.published
        assert published is not None
        assert published.may_promise(peer), "a second promise in one period"
        proposed = share(published.degree, pair.degree, self.ledger.reserve)
        if pair.weight is not None:
            proposed = pair.weight * (1.0 - self.ledger.reserve)
        if proposed * factor < LEAST_WEIGHT <= proposed:
            return self.refuse(peer, objections.TOO_FAR, now)
        weight = min(proposed * factor, self.ledger.left)
        if weight < LEAST_WEIGHT:
            return self.refuse(peer, objections.NO_SHARE, now)
        ours = Receipt(pair.own.digest, pair.theirs.digest, weight)
        published.promised.add(peer)
        self.ledger.promise(peer, ours, pair.since)
        self.sessions[peer] = Promising(pair, receipt)
        return [ev.SaveReceipt(peer, ours, factor)]

    def receipt_saved(self, peer: str, receipt: Receipt, now: float) -> list[Effect]:
        """Our receipt survives a crash: send it. From here on the other end may count the edge."""
        promise = self.ledger.promised(peer)
        match self.sessions.get(peer):
            case Promising(pair, theirs) if promise is not None and promise.receipt == receipt:
                self.ledger.sent(peer)
                self.sessions[peer] = Promised(pair)
                self.unheard.say(peer, receipt)
                sent: list[Effect] = [ev.SendReceipt(peer, receipt)]
                return sent if theirs is None else sent + self._settle(peer, theirs, now)
        return []

    def receipt_received(self, peer: str, receipt: Receipt, now: float) -> list[Effect]:
        """The peer's promise came: of this edge, or, said again, of an earlier one. Others change nothing."""
        if (refusal := objections.object_to_weight(receipt)) is not None:
            return self.refuse(peer, refusal, now)
        session, promise = self.sessions.get(peer), self.ledger.promised(peer)
        if isinstance(session, Paired) and session.pair.is_of(receipt):
            self.unheard.heard(peer, but=session.pair.own.digest)  # it has our offer, and what was said before it
        if promise is not None and promise.is_answered_by(receipt):
            return self._settle(peer, receipt, now)
        if isinstance(session, Fetching | Inspecting | Promising) and session.pair.is_of(receipt):
            self.sessions[peer] = type(session)(session.pair, receipt)
        return []

    def _settle(self, peer: str, theirs: Receipt, now: float) -> list[Effect]:
        """Both receipts are here: the edge counts."""
        promise = self.ledger.settle(peer, theirs)
        published = self.published
        if published is not None:
            repeated = promise.receipt.own == published.snapshot.digest  # promised in an earlier life
            if repeated or promise.period == self.ledger.period:
                published.settled.add(peer)
        self._members.used(peer, promise.receipt.theirs)
        if (member := self._members.get(peer)) is not None:
            factor = 1.0 if member.clip_factor is None else member.clip_factor
            self._clipping.settled(peer, factor * min(1.0, theirs.weight / promise.receipt.weight))
            if promise.since != EARLIER:
                member.arrivals.arrived(now - promise.since)
            member.refusals, member.problem = 0, ""
        if not isinstance(self.sessions.get(peer), Promised):
            return []
        del self.sessions[peer]
        return [ev.CloseEdge(peer)]

    # --- endings ---------------------------------------------------------------------------------------------

    def refuse(self, peer: str, refusal: Refusal, now: float) -> list[Effect]:
        """Tell the peer why not; nobody counts the edge."""
        self._end(peer)
        if refusal.content:
            self._members.refused(peer, refusal.message, now)
        return [ev.RefuseEdge(peer, refusal.reason, refusal.message)]

    def refused(self, event: ev.EdgeRefused, now: float) -> None:
        """The peer wants no edge. It counts none, so a promise of this stream is void."""
        peer = event.peer
        if event.reason == objections.DUPLICATE:
            self.drop(peer)
            return self._openings.retry(peer, now)
        self._end(peer)
        if event.reason in objections.DECLINES:
            self._members.declined(peer, event.message, now)
        elif event.reason in objections.OUR_FAULTS:
            self._members.refused(peer, event.message, now)
        elif event.reason != objections.NO_ROOM.reason and (member := self._members.get(peer)) is not None:
            member.problem = event.message
            if event.reason == objections.NOT_A_NEIGHBOUR:
                self.unheard.heard(peer)  # it has read our offer
        return None

    def _end(self, peer: str) -> None:
        """Nobody counts the edge of this stream, and no other begins with our snapshot."""
        if isinstance(self.sessions.get(peer), Promised):
            self.void(peer)
        self.drop(peer)
        self.give_up(peer)
        if self.published is not None:
            self.published.tries.pop(peer, None)

    def broken(self, peer: str, now: float) -> None:
        """The stream ended. What is promised on it may still count: the peer says so on the next stream."""
        had = self.drop(peer)
        if had is not None and not isinstance(had, Serving):
            self.give_up(peer)
            self._openings.retry(peer, now)

    def left(self, peer: str, now: float) -> list[Effect]:
        """The peer said goodbye: its stream is no use any more."""
        if peer not in self.sessions:
            return []
        self.broken(peer, now)
        return [ev.CloseEdge(peer)]

    def unreached(self, peer: str, now: float) -> list[Effect]:
        """A probe or a dialling failed: a stream that nobody has answered goes nowhere."""
        return self.left(peer, now) if self.is_open(peer) else []

    def shut(self, refusal: Refusal, now: float, serve: bool) -> list[Effect]:
        """Refuse every edge whose promise is not made yet, and wait for none; newcomers are served on if ``serve``.

        A receipt on its way to disk is a promise: after a crash it would be said.
        """
        effects: list[Effect] = []
        if self.published is not None:
            promised = {peer for peer, session in self.sessions.items() if isinstance(session, Promising | Promised)}
            self.published.given_up |= self.published.slots - promised
        for peer, session in sorted(self.sessions.items()):
            if isinstance(session, Promising | Promised) or (serve and isinstance(session, Serving)):
                continue
            effects += (self.turn_away if isinstance(session, Held) else self.refuse)(peer, refusal, now)
        return effects

    def close_promised(self) -> list[Effect]:
        """End the streams whose edges no mix will count any more."""
        peers = [peer for peer, session in sorted(self.sessions.items()) if isinstance(session, Promised)]
        for peer in peers:
            self.drop(peer)
        return [ev.CloseEdge(peer) for peer in peers]

    def close_all(self) -> list[Effect]:
        """End every stream."""
        peers = sorted(self.sessions)
        for peer in peers:
            self.drop(peer)
        return [ev.CloseEdge(peer) for peer in peers]
