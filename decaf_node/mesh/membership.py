"""Who is here: alive, late or gone, as functions of now; and whom to probe when.

A member is alive while it was heard of late, late when it is quiet or a probe failed, gone after several failed
probes, a long quiet, or a goodbye; one that was never heard is gone too. Whatever comes from a peer counts as
hearing it. Gone members are probed for ever, with back-off, and at once when discovery finds them again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from random import Random

from decaf_node.mesh.deadlines import Arrivals
from decaf_node.mesh.events import Edge, PeerAnswered, PeerFound, PeerSilent, Receipt
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.topology import Graph, graph_of

ALIVE_PROBES = 3  # quiet for so many probe intervals: late
GONE_PROBES = 12  # quiet for so many: gone
GONE_SILENCES = 3  # failed probes in a row: gone
SOONEST = 0.1  # seconds between two probes of one peer, whatever the settings say
DOUBLINGS = 16  # 2 ** this is longer than any back-off
NEVER = float("-inf")


@dataclass
class Member:
    """What is known of one peer."""

    peer: str
    probe_at: float
    name: str = ""
    schema: str = ""  # empty: not known yet, its trainer is loading
    round: int = 0
    addresses: tuple[str, ...] = ()
    heard: float | None = None
    silences: int = 0
    left: bool = False
    problem: str = ""
    probed: float = NEVER
    declined_until: float = NEVER  # it wants no edges: no neighbour until then
    refused_until: float = NEVER  # a snapshot of its, or of ours, was no good: no edge until then
    refusals: int = 0
    newcomer: bool = False  # its last offer said that it has never mixed
    said: Receipt | None = None  # our last receipt to it
    arrivals: Arrivals = field(default_factory=Arrivals)
    weight: float | None = None
    distance: float | None = None
    mixes: int = 0


class Membership:
    """The members that ``me`` knows of, itself not among them; at most ``policy.peer_limit``."""

    def __init__(self, me: str, policy: Policy, random: Random) -> None:
        self._me = me
        self._policy = policy
        self._random = random
        self._members: dict[str, Member] = {}

    def __iter__(self) -> Iterator[Member]:
        return iter([self._members[peer] for peer in sorted(self._members)])

    def __len__(self) -> int:
        return len(self._members)

    def get(self, peer: str) -> Member | None:
        """Return the member, if it is one."""
        return self._members.get(peer)

    def state(self, member: Member, now: float) -> str:
        """Return ``alive``, ``late`` or ``gone``."""
        if member.heard is None or member.left or member.silences >= GONE_SILENCES:
            return "gone"
        quiet = now - member.heard
        if quiet > GONE_PROBES * self._policy.probe_every:
            return "gone"
        return "late" if member.silences or quiet > ALIVE_PROBES * self._policy.probe_every else "alive"

    def is_here(self, member: Member, now: float) -> bool:
        """Alive or late."""
        return self.state(member, now) != "gone"

    def graph(self, schema: str, now: float, also: Collection[str] = ()) -> Graph:
        """Return the graph of ourselves and the members that are here, of our schema and willing.

        ``also`` are peers that count as here because a stream of theirs is up. A schema not known yet passes: its
        trainer is loading, and a mesh is founded together with it.
        """
        eligible = [
            member.peer
            for member in self
            if (member.peer in also or self.is_here(member, now))
            and member.schema in ("", schema)
            and now >= member.declined_until
        ]
        return graph_of(self._policy.topology, [*eligible, self._me])

    def remember(self, edge: Edge) -> None:
        """In an earlier life we sent the peer a receipt of this edge; it is said again when we meet."""
        if (member := self._add(edge.peer, NEVER)) is not None:
            member.said = Receipt(edge.own, edge.theirs, edge.weight)

    # --- what happens -----------------------------------------------------------------------------------------

    def found(self, event: PeerFound, now: float) -> None:
        """Discovery knows it: probe it at once if it is not here."""
        if (member := self._add(event.peer, now)) is not None:
            member.addresses = event.addresses
            if not self.is_here(member, now):
                member.probe_at = max(now, member.probed + SOONEST)

    def answered(self, event: PeerAnswered, now: float) -> None:
        """A probe came back."""
        if (member := self.heard(event.peer, now)) is not None:
            member.name, member.schema = event.name, event.schema
            member.round = max(member.round, event.round)

    def heard(self, peer: str, now: float) -> Member | None:
        """Something came from the peer; it becomes a member. None if there is no room for it."""
        if (member := self._add(peer, now)) is not None:
            if not self.is_here(member, now):
                member.declined_until = NEVER
            member.heard, member.silences, member.left = now, 0, False
            member.probe_at = now + self._interval(member)
        return member

    def silent(self, event: PeerSilent) -> None:
        """A probe or a dialling did not get through."""
        if (member := self._members.get(event.peer)) is not None:
            member.silences += 1
            member.problem = event.problem

    def said_goodbye(self, peer: str, now: float) -> None:
        """It is gone at once; it is probed again with back-off."""
        if (member := self._members.get(peer)) is not None:
            member.left = True
            member.probe_at = now + self._interval(member)

    def declined(self, peer: str, problem: str, now: float) -> None:
        """It wants no edges for now."""
        if (member := self._members.get(peer)) is not None:
            member.problem = problem
            member.declined_until = now + self._policy.redial_backoff

    def refused(self, peer: str, problem: str, now: float) -> None:
        """A snapshot was no good: no edge for a while, each time longer."""
        if (member := self._members.get(peer)) is not None:
            member.problem = problem
            member.refused_until = now + self._backoff(member.refusals)
            member.refusals += 1

    def mixed(self, peer: str, weight: float) -> None:
        """An edge with the peer is mixed."""
        if (member := self._members.get(peer)) is not None:
            member.weight = weight
            member.mixes += 1

    # --- probes ----------------------------------------------------------------------------------------------

    def due(self, now: float) -> list[str]:
        """Return the peers to probe now."""
        peers = [member for member in self if member.probe_at <= now]
        for member in peers:
            member.probed = now
            member.probe_at = now + self._interval(member)
        return [member.peer for member in peers]

    def deadline(self) -> float | None:
        """When ``due`` has something next."""
        return min((member.probe_at for member in self._members.values()), default=None)

    def _interval(self, member: Member) -> float:
        silences = max(member.silences, GONE_SILENCES if member.left or member.heard is None else 0)
        if silences < GONE_SILENCES:
            return max(self._policy.probe_every, SOONEST)
        return self._backoff(silences - GONE_SILENCES)

    def _backoff(self, times: int) -> float:
        longest = self._policy.probe_every * 2.0 ** min(times, DOUBLINGS)
        return max(min(longest, self._policy.redial_backoff) * self._random.uniform(0.5, 1.0), SOONEST)

    def _add(self, peer: str, now: float) -> Member | None:
        if peer == self._me:
            return None
        if peer not in self._members and self._has_room(now):
            self._members[peer] = Member(peer, probe_at=now)
        return self._members.get(peer)

    def _has_room(self, now: float) -> bool:
        if len(self._members) < self._policy.peer_limit:
            return True
        gone = [member for member in self if not self.is_here(member, now)]
        if not gone:
            return False
        longest = min(gone, key=lambda member: (NEVER if member.heard is None else member.heard, member.peer))
        del self._members[longest.peer]
        return True
