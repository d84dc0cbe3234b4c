"""A newcomer takes over the state of the mesh: the streams of phase ``Adopting``. See ``adoption.py`` for the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from decaf_node.mesh import adoption, objections
from decaf_node.mesh import events as ev
from decaf_node.mesh.adoption import Ask
from decaf_node.mesh.edges import Edges
from decaf_node.mesh.events import Effect, Offer
from decaf_node.mesh.member import Member
from decaf_node.mesh.membership import Membership
from decaf_node.mesh.phases import Adopting
from decaf_node.mesh.policy import Policy

Step = tuple[Adopting, list[Effect]]

StreamEvent = (
    ev.OfferReceived
    | ev.SnapshotReceived
    | ev.SnapshotRefused
    | ev.SnapshotInspected
    | ev.EdgeRefused
    | ev.EdgeBroken
    | ev.PeerSilent
    | ev.PeerLeft
)


class Joining:
    """Asks members for their state, by the rules of ``adoption``."""

    def __init__(self, policy: Policy, members: Membership, edges: Edges, random: Random) -> None:
        self._policy = policy
        self._members = members
        self._edges = edges
        self._random = random

    def begin(self, round: int, met: Mapping[str, tuple[Offer, bool]], now: float) -> Step:
        """Ask those that we have ``met`` on streams that are up (their offer, and whether they opened), and others.

        Every edge that is not promised is refused, and no other begins: what we have now is not to be mixed.
        """
        assert self._edges.published is not None, "nobody adopts before it has published"
        self._edges.published.retire()
        for peer in met:
            self._edges.drop(peer)
        effects = self._edges.shut(objections.ADOPTING, now, serve=False)
        first = sorted(met)[: self._policy.adopt_from]
        effects += [ev.CloseEdge(peer) for peer in sorted(met) if peer not in first]
        others = self._draw(self._policy.adopt_from - len(first), met, now)
        ceiling = self._policy.wait_ceiling
        asks = tuple(Ask(peer) for peer in sorted([*first, *others]))
        phase = Adopting(round, now + ceiling, now + adoption.PATIENCE * ceiling, asks)
        effects += [ev.OpenEdge(peer, self._asking(round), self._edges.unheard.of(peer)) for peer in others]
        for peer in first:
            offer, incoming = met[peer]
            phase, more = self._take_offer(phase, peer, offer, incoming, now)
            effects += more
        return phase, effects

    def take(self, phase: Adopting, event: StreamEvent, now: float) -> Step:
        """Take what happened on the stream to a member that was asked."""
        ask = adoption.find(phase.asks, event.peer)
        match event:
            case ev.OfferReceived(peer, offer, incoming) if ask and (incoming or ask.stage == "asked"):
                return self._take_offer(phase, peer, offer, incoming, now)
            case ev.SnapshotReceived(peer, digest) if ask and ask.stage == "fetching" and ask.digest == digest:
                return self._inspect(phase, peer, digest)
            case ev.SnapshotInspected(peer, digest) if ask and ask.stage == "inspecting" and ask.digest == digest:
                return self._judge(phase, event, now)
            case ev.SnapshotRefused(peer, digest, problem) if ask and ask.pending and ask.digest == digest:
                return self._refuse(phase, peer, objections.bad_content("mesh.bad-snapshot", problem), now)
            case ev.EdgeRefused(peer) | ev.EdgeBroken(peer) if ask and ask.pending:
                return _fail(phase, peer), []
            case ev.PeerLeft(peer) | ev.PeerSilent(peer) if ask and ask.pending:
                if isinstance(event, ev.PeerSilent) and ask.stage != "asked":
                    return phase, []
                return _fail(phase, peer), [ev.CloseEdge(peer)]
        return phase, []

    def end(self, phase: Adopting) -> list[Effect]:
        """Close the streams to those that have not answered."""
        return [ev.CloseEdge(ask.peer) for ask in phase.asks if ask.pending]

    def _draw(self, count: int, met: Mapping[str, object], now: float) -> list[str]:
        others = [member.peer for member in self._members if member.peer not in met and self._may_ask(member, now)]
        return sorted(self._random.sample(others, min(count, len(others))))

    def _may_ask(self, member: Member, now: float) -> bool:
        return (
            self._members.is_here(member, now)
            and member.schema == self._edges.schema
            and not member.newcomer
            and now >= max(member.declined_until, member.refused_until)
            and member.peer not in self._edges.sessions
        )

    def _asking(self, round: int) -> Offer:
        return Offer(self._edges.schema, None, round, 0, 0, adopt=True)

    def _take_offer(self, phase: Adopting, peer: str, offer: Offer, incoming: bool, now: float) -> Step:
        """Fetch what the member offers, on whichever stream its offer came."""
        member = self._members.get(peer)
        limit = self._policy.snapshot_limit_bytes
        if member is None:
            return _fail(phase, peer), [_refusal(peer, objections.FULL)]
        if (refusal := objections.object_to(offer, member, self._edges.schema, limit, now)) is not None:
            return self._refuse(phase, peer, refusal, now)
        if offer.snapshot is None or offer.adopt or offer.mixes == 0:
            return _fail(phase, peer), [_refusal(peer, objections.ADOPTING)]
        asks = adoption.put(phase.asks, peer, "fetching", offer.snapshot.digest, offer.snapshot.round)
        answer: list[Effect] = []
        if incoming:
            answer = [*self._edges.say_again(peer), ev.AnswerEdge(peer, self._asking(phase.round))]
        return replace(phase, asks=asks), [*answer, ev.FetchSnapshot(peer, offer.snapshot)]

    def _inspect(self, phase: Adopting, peer: str, digest: str) -> Step:
        published = self._edges.published
        assert published is not None, "nobody adopts before it has published"
        inspect = ev.InspectSnapshot(peer, digest, published.snapshot.digest)
        return replace(phase, asks=adoption.put(phase.asks, peer, "inspecting")), [inspect]

    def _judge(self, phase: Adopting, event: ev.SnapshotInspected, now: float) -> Step:
        if (refusal := objections.object_to_inspected(event)) is not None:
            return self._refuse(phase, event.peer, refusal, now)
        return replace(phase, asks=adoption.put(phase.asks, event.peer, "ready")), [ev.CloseEdge(event.peer)]

    def _refuse(self, phase: Adopting, peer: str, refusal: objections.Refusal, now: float) -> Step:
        if refusal.content:
            self._members.refused(peer, refusal.message, now)
        return _fail(phase, peer), [_refusal(peer, refusal)]


def _fail(phase: Adopting, peer: str) -> Adopting:
    return replace(phase, asks=adoption.put(phase.asks, peer, "failed"))


def _refusal(peer: str, refusal: objections.Refusal) -> Effect:
    return ev.RefuseEdge(peer, refusal.reason, refusal.message)
