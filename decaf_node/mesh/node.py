"""The mesh machine: events in, effects out. The only place where a node decides anything.

The daemon's driver and a simulator are two hosts of the same object. A host hands in every event with the time at
which it handles it, performs the effects in the order in which they come, and hands in ``Tick`` at ``deadline()``.
What it must see to:

- at most one stream a peer (of two the one that the lower ID opened stays), in order, and no event of a stream that
  another has replaced or that was closed; but a receipt counts whenever it comes;
- ``EdgeBroken`` for every stream that ends without ``CloseEdge`` or ``RefuseEdge`` of ours, also while a newcomer is
  served, or ``PeerSilent`` where it never came up;
- what was written on a stream before ``CloseEdge`` still arrives: the last thing on it may be our receipt;
- several receipts on one stream: before its offer each end says again what the other may not have heard;
- what a hello is answered with is ``news()``, asked for once ``step`` has taken its ``HelloReceived``; addresses in
  news that come in serve to dial the peers that they are of;
- bytes of all that is ``needed()`` stay where they are.
"""

from __future__ import annotations

from random import Random

from decaf_node.mesh import events as ev
from decaf_node.mesh import objections
from decaf_node.mesh.deadlines import Deadlines
from decaf_node.mesh.edges import Edges
from decaf_node.mesh.events import Effect, Event, Saved
from decaf_node.mesh.ledger import Ledger
from decaf_node.mesh.member import Member
from decaf_node.mesh.membership import Membership
from decaf_node.mesh.phases import Exchanging, Paused, Phase, Stopped
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.rounds import Rounds
from decaf_node.mesh.rumours import NO_NEWS, News
from decaf_node.mesh.sessions import Opened
from decaf_node.mesh.timers import earlier
from decaf_node.mesh.topology import Graph
from decaf_node.mesh.unheard import Unheard
from decaf_node.mesh.view import NodeView, PeerView

_QUIET = {
    ev.Tick: 0,
    ev.PeerFound: 0,
    ev.PeerAnswered: 0,
    ev.HelloReceived: 0,
    ev.ReceiptReceived: 0,
    ev.ReceiptSaved: 1,
}
"""Events that change nothing for the rounds, if they lead to so many effects and no edge comes to be ready.

A receipt that was said again is one, and a tick for a probe; together they are most of what happens.
"""


class Node:
    """One node. ``saved`` is its last durable state, None for a node without one."""

    def __init__(self, me: str, policy: Policy, random: Random, saved: Saved | None) -> None:
        deadlines = Deadlines(policy.wait_floor, policy.wait_ceiling, policy.overlap)
        ledger = Ledger() if saved is None else Ledger(saved.unsaved, saved.promised)
        said = () if saved is None else (*saved.unheard, *saved.unsaved, *saved.promised)
        self.members = Membership(me, policy, random)
        for edge in said:
            self.members.remember(edge.peer)
        for edge in ledger.again:
            self.members.used(edge.peer, edge.theirs)
        unheard = Unheard(policy.peer_limit, said)
        self.edges = Edges(me, policy, self.members, deadlines, random, ledger, unheard)
        self.members.watch(self.edges.sessions)
        self.rounds = Rounds(policy, self.members, self.edges, deadlines, random, saved)
        self._now = float("-inf")
        self._seen = -1  # the version of the members for which ``_due`` holds
        self._due: float | None = None  # when the rounds want something next, if nothing happens before
        self._deadline = self.members.deadline()

    @property
    def phase(self) -> Phase:
        """Where the node stands."""
        inner = self.rounds.phase
        return Paused(inner) if self.rounds.paused else inner

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take one event; return what to do about it, in order.

        An event that does not fit the phase is late or a duplicate: it changes nothing.
        """
        assert now >= self._now, "time runs backwards"
        self._now = now
        if isinstance(self.rounds.phase, Stopped):
            return []
        self.members.pass_time(now)
        ready = self.edges.ledger.ready
        effects = self._take(event, now)
        quiet = _QUIET.get(type(event), -1) == len(effects) and self.edges.ledger.ready is ready
        if not (quiet and self._is_as_it_was(now)):
            effects += self.rounds.due(now)
            self._due, self._seen = self.rounds.deadline(now), self.members.version
        if not isinstance(self.rounds.phase, Stopped):
            effects += [ev.ProbePeer(peer, news) for peer, news in self.members.due(self.edges.schema, now)]
        stopped = isinstance(self.rounds.phase, Stopped)
        self._deadline = None if stopped else earlier(self.members.deadline(), self._due)
        return effects

    def deadline(self) -> float | None:
        """Return when ``Tick`` is wanted, in the clock of ``step``; None if nothing depends on time."""
        return self._deadline

    def _is_as_it_was(self, now: float) -> bool:
        """Say whether nothing has changed for the rounds: the same members, and no time that they wait for has come."""
        return self._seen == self.members.version and (self._due is None or now < self._due)

    def needed(self) -> frozenset[str]:
        """Return the digests whose bytes must be kept, in the spool or (an absent node's base) in the state folder."""
        return self.edges.needed() | self.rounds.needed()

    def news(self, peer: str = "", theirs: News = NO_NEWS) -> News:
        """Return what to answer to the hello of ``peer``, once ``step`` has taken it, or say to one not known yet.

        theirs: what came with its hello. Changes nothing.
        """
        return self.members.news(peer, theirs)

    def view(self, now: float) -> NodeView:
        """Return what people see of this node."""
        self.members.pass_time(now)
        rounds, published = self.rounds, self.edges.published
        around = self.edges.candidates(now)
        waiting = rounds.awaited(now) if isinstance(rounds.phase, Exchanging) else ()
        return NodeView(
            phase=type(self.phase).__name__.lower(),
            round=self.phase.round,
            mixes=rounds.mixes,
            degree=len(around) if published is None else published.degree,
            waiting_for=tuple(peer for peer, _ in waiting),
            saved_round=rounds.saved_round or 0,
            peers=tuple(self._peer_view(member, member.peer in around, now) for member in self.members),
            next_mix=rounds.next_mix,
        )

    def graph(self, now: float) -> tuple[Graph, int]:
        """Return who mixes with whom as this node sees it, and the turn for which it has published; 0 before that."""
        self.members.pass_time(now)
        published = self.edges.published
        return self.edges.graph(now), 0 if published is None else published.turn

    def _peer_view(self, member: Member, neighbour: bool, now: float) -> PeerView:
        schema = self.edges.schema
        foreign = bool(schema) and member.schema not in ("", schema)
        return PeerView(
            peer=member.peer,
            name=member.name,
            state=self.members.state(member, now),
            addresses=member.addresses,
            neighbour=neighbour,
            round=member.round,
            heard=None if member.heard is None else now - member.heard,
            weight=member.weight,
            distance=member.distance,
            plain_distance=member.plain_distance,
            harm=member.harm,
            clip_factor=member.clip_factor,
            mixes=member.mixes,
            problem=f"{objections.schema_problem(member.schema, schema)}." if foreign else member.problem,
            left=self.members.has_left(member.peer),
        )

    # --- routing ---------------------------------------------------------------------------------------------

    def _take(self, event: Event, now: float) -> list[Effect]:
        rounds = self.rounds
        match event:
            case ev.TrainerStarted():
                return rounds.trainer_started(event, now)
            case ev.TrainerLost():
                return rounds.trainer_lost()
            case ev.RoundTrained():
                return rounds.round_trained(event, now)
            case ev.RoundMixed():
                return rounds.round_mixed(event, now)
            case ev.RoundSaved():
                return rounds.round_saved(event, now)
            case ev.SaveFailed():
                return rounds.save_failed(event, now)
            case ev.StateAdopted():
                return rounds.state_adopted(event, now)
            case ev.PauseRequested():
                return rounds.pause(now)
            case ev.ResumeRequested():
                return rounds.resume()
            case ev.MixRequested():
                return rounds.end_steps()
            case ev.StopRequested():
                return rounds.stop(now)
            case ev.Tick():
                return []
            case ev.PeerFound():
                self.members.found(event, now)
                return []
            case ev.PeerAnswered() | ev.HelloReceived():
                self.members.met(event, now)
                return []
            case _:
                return self._take_from_peer(event, now)

    def _take_from_peer(self, event: Event, now: float) -> list[Effect]:
        """Something about a peer: whatever came from it shows that it is here."""
        match event:
            case ev.PeerSilent(peer):
                session = self.edges.sessions.get(peer)
                if session is None or isinstance(session, Opened):  # a stream that is up says more than a probe
                    self.members.silent(event, now)
            case ev.PeerLeft(peer):
                self.members.said_goodbye(peer, now)
            case ev.OfferReceived(peer, offer, incoming):
                if not self.members.offered(peer, offer, now):
                    return [ev.RefuseEdge(peer, objections.FULL.reason, objections.FULL.message)]
                if not incoming:
                    self.edges.unheard.heard(peer)  # it has answered what was said first on our stream
            case ev.SnapshotReceived(peer) | ev.ReceiptReceived(peer) | ev.EdgeRefused(peer):
                self.members.heard(peer, now)
        return self._take_from_stream(event, now)

    def _take_from_stream(self, event: Event, now: float) -> list[Effect]:
        rounds, edges = self.rounds, self.edges
        match event:
            case (
                ev.OfferReceived(peer)
                | ev.SnapshotReceived(peer)
                | ev.SnapshotRefused(peer)
                | ev.SnapshotInspected(peer)
                | ev.EdgeRefused(peer)
                | ev.EdgeBroken(peer)
                | ev.PeerSilent(peer)
                | ev.PeerLeft(peer)
            ) if rounds.asks(peer):
                return rounds.join(event, now)
            case ev.OfferReceived():
                return rounds.offered(event, now)
            case ev.SnapshotReceived(peer, digest):
                return edges.snapshot_received(peer, digest)
            case ev.SnapshotRefused():
                return edges.snapshot_refused(event, now)
            case ev.SnapshotInspected():
                return edges.inspected(event, now)
            case ev.ReceiptSaved(peer, receipt):
                return edges.receipt_saved(peer, receipt, now)
            case ev.ReceiptReceived(peer, receipt):
                return edges.receipt_received(peer, receipt, now)
            case ev.EdgeRefused():
                edges.refused(event, now)
            case ev.EdgeBroken(peer):
                edges.broken(peer, now)
            case ev.PeerLeft(peer):
                return edges.left(peer, now)
            case ev.PeerSilent(peer):
                return edges.unreached(peer, now)
        return []
