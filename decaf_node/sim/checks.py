"""What must always hold (DESIGN.md, section 3), looked at after every step of every node, and at the end of a run."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decaf_node.mesh import events as ev
from decaf_node.mesh.adoption import must_adopt
from decaf_node.mesh.events import Effect, Event, Offer
from decaf_node.mesh.phases import Adopting, Done, Exchanging, Inner, Mixing, Saving, Starting, Stopped, Stopping
from decaf_node.mesh.topology import graph_of
from decaf_node.mesh.weights import ROUNDING
from decaf_node.sim.network import Stream
from decaf_node.sim.problem import Mixed, Term
from decaf_node.sim.violation import Violation

if TYPE_CHECKING:
    from decaf_node.sim.host import Host
    from decaf_node.sim.world import World

LATE = 1e-6  # seconds that a clock may be off by rounding
RESIDUAL = 1e-6  # of the exact sum's norm, that a mix may miss beyond its tail
AROUND = (ev.PeerFound, ev.PeerAnswered, ev.HelloReceived, ev.Tick)  # where one leads to nothing, no edge has changed


@dataclass(slots=True)
class Watched:
    """A node as it was after its last step. since: when its exchange began, by its clock; until: when that must end."""

    phase: Inner
    since: float = 0.0
    until: float = math.inf


class Checks:
    """Raises ``Violation`` where something does not hold. It sees the whole world, which no node does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._makers: dict[str, tuple[Host, float]] = {}  # digest -> who published it, and when
        self._offers: dict[str, list[Offer]] = {}
        self._weights: dict[tuple[str, str], float] = {}
        self._times: dict[tuple[str, str], float] = {}  # (own, theirs) -> when it was mixed first
        self._kept: dict[str, AbstractSet[tuple[str, str]]] = {}  # device -> what its last state held, when it began
        self._mixes: dict[str, list[float]] = {}  # device -> when it has mixed
        self._mixed_with: dict[tuple[str, str], float] = {}  # (device, peer) -> when last
        self._watched: dict[str, Watched] = {}  # by device
        self._handed: set[tuple[str, str]] = set()  # edges that a trainer was told to mix
        self._lost: set[tuple[str, str]] = set()  # mixed, and lost with the state that held it
        self._twins: set[str] = set()
        self.wait_longest = 0.0
        self.ledger_most = 0
        self.members_most = 0

    # --- a node ----------------------------------------------------------------------------------------------

    def started(self, host: Host) -> None:
        """A daemon starts from its disk: what it was told to be saved is there."""
        saved = host.disk.newest()
        found = 0 if saved is None else saved.round
        phase = host.node.rounds.phase
        if phase.round < found + 1:
            raise Violation("round-number", f"it starts with {phase.round}, and {found} is saved")
        self._watched[host.device] = Watched(phase)
        if found < host.disk.acknowledged:
            raise Violation(
                "durable", f"round {host.disk.acknowledged} was acknowledged as saved, but {found} is there"
            )

    def stepped(self, host: Host, event: Event, effects: Sequence[Effect], now: float, deadline: float | None) -> None:
        """A node has taken an event, and wants a tick at ``deadline``; all by its clock."""
        node, watched = host.node, self._watched[host.device]
        if node.rounds.phase is not watched.phase:
            self._turned(host, watched, node.rounds.phase, now)
        if now > watched.until:
            self._check_wait(host, watched, now)
        if deadline is not None and deadline <= now:
            raise Violation("deadline", f"it wants a tick at {deadline}, which is past at {now}")
        if effects or type(event) not in AROUND:
            self._check_edges(host)
        members = len(node.members)
        if members > self.members_most:
            self.members_most = members
        if members > host.policy.peer_limit:
            raise Violation("bounded", f"{members} members, above the limit")

    def performed(self, host: Host, event: Event, effects: Sequence[Effect]) -> None:
        """What a node wanted is done: every stream that is up has a session in its machine, and the other way round."""
        if not effects and type(event) in AROUND:
            return
        phase = host.node.rounds.phase
        sessions: AbstractSet[str] = host.node.edges.sessions.keys()
        if isinstance(phase, Adopting) and not phase.chosen_from:
            sessions = sessions | {ask.peer for ask in phase.asks if ask.pending}
        if host.streams.keys() != sessions:
            raise Violation("streams", f"streams are up to {sorted(host.streams)}, and it knows of {sorted(sessions)}")

    def _turned(self, host: Host, watched: Watched, phase: Inner, now: float) -> None:
        """A node is in another phase than before."""
        before, watched.phase = watched.phase, phase
        if phase.round < before.round and not isinstance(phase, Done | Stopping | Stopped):  # these name what is over
            raise Violation("round-number", f"it went from {before.round} back to {phase.round}")
        limit = host.policy.limit
        never_started = isinstance(before, Starting) and isinstance(phase, Stopped)  # it names what would come next
        beyond = 0 < limit < phase.round and not never_started
        if beyond or (isinstance(phase, Done) and phase.round != limit):
            raise Violation("limit", f"it is {type(phase).__name__.lower()} in round {phase.round} of {limit}")
        exchanged, exchanges = isinstance(before, Exchanging), isinstance(phase, Exchanging)
        if exchanged:
            self._check_wait(host, watched, now)
        if exchanges and not (exchanged and phase.round == before.round):
            watched.since = now
        watched.until = watched.since + host.policy.wait_ceiling + LATE if exchanges else math.inf

    def _check_wait(self, host: Host, watched: Watched, now: float) -> None:
        """Nobody waits for the dead: an exchange ends by the ceiling, whatever comes or does not come."""
        if host.thawed * host.rate >= watched.since:  # it hung meanwhile, and could not go on
            return
        waited = now - watched.since
        self.wait_longest = max(self.wait_longest, waited)
        if waited > host.policy.wait_ceiling + LATE:
            raise Violation("wait", f"it has waited {waited:.1f} s for its neighbours, above the ceiling")

    def _check_edges(self, host: Host) -> None:
        """Books and streams stay within their limits."""
        edges, members = host.node.edges, len(host.node.members)
        receipts, published = edges.ledger.size, edges.published
        if receipts > self.ledger_most:
            self.ledger_most = receipts
        if receipts > 2 * host.policy.unsaved_receipts + members:
            raise Violation("bounded", f"{receipts} receipts are kept")
        if edges.ledger.owed() > 1.0 + ROUNDING:
            raise Violation("weights", f"promised and not mixed weights sum to {edges.ledger.owed()}")
        if published is not None and not published.settled <= published.promised:
            raise Violation("edges", "an edge is settled that was never promised")
        if len(edges.sessions) > members:
            raise Violation("bounded", "more streams than members")

    # --- edges and mixes -------------------------------------------------------------------------------------

    def published(self, host: Host, digest: str) -> None:
        """A trainer has published a snapshot."""
        if digest in self._makers:
            raise Violation("snapshot", f"{digest} is published twice")
        self._makers[digest] = host, self._world.now

    def offered(self, offer: Offer) -> None:
        """A snapshot is offered."""
        if offer.snapshot is not None:
            self._offers.setdefault(offer.snapshot.digest, []).append(offer)

    def serves(self, host: Host, stream: Stream, digest: str) -> None:
        """Somebody asks for a snapshot that was offered: its bytes are there."""
        if digest not in stream.offered[host.device]:
            raise Violation("snapshot", f"{digest} is asked for on a stream on which it was not offered")
        if digest not in host.disk.spool:
            raise Violation("bytes", f"{digest} was offered and its bytes are gone")

    def mixes(self, host: Host, effect: ev.MixRound) -> None:
        """A node has its trainer mix: only what is whole, ours and known, and in sum at most 1."""
        spool = host.disk.spool
        for edge in effect.edges:
            if edge.own not in spool or edge.theirs not in spool:
                raise Violation("bytes", f"an edge with {edge.peer} is to be mixed and its bytes are gone")
            theirs = spool[edge.theirs]
            if not theirs.finite or theirs.schema != host.schema:
                raise Violation("foreign", f"{edge.theirs} is not finite, or of another schema, and is to be mixed")
            if not (math.isfinite(edge.weight) and 0.0 < edge.weight <= 1.0):
                raise Violation("weights", f"the edge with {edge.peer} weighs {edge.weight}")
            self._check_newcomer(edge)
        fresh = [
            edge
            for edge in effect.edges
            if (edge.own, edge.theirs) not in self._handed and spool[edge.own].life == host.life
        ]
        self._handed.update((edge.own, edge.theirs) for edge in effect.edges)
        if sum(edge.weight for edge in fresh) > 1.0 + ROUNDING:
            raise Violation("weights", f"the weights of round {effect.round} sum above 1")

    def _check_newcomer(self, edge: ev.Edge) -> None:
        """A newcomer adopts; it is not mixed with a mesh that is ahead of it."""
        ours, theirs = self._offers[edge.own], self._offers[edge.theirs]
        pairs = [(one, other) for one in ours for other in theirs]
        if all(must_adopt(one, other, False) or must_adopt(other, one, False) for one, other in pairs):
            raise Violation("newcomer", f"{edge.own} and {edge.theirs} are mixed, and one of them should have adopted")

    def mixed(self, host: Host, effect: ev.MixRound, before: object, terms: Sequence[Term], mixed: Mixed) -> None:
        """A trainer has mixed: each edge once, with one weight at both ends, and nothing lost but the tail."""
        for edge in effect.edges:
            key, back = (edge.own, edge.theirs), (edge.theirs, edge.own)
            if key in host.trainer.applied:
                raise Violation("once", f"the edge {edge.own} - {edge.theirs} is mixed twice")
            if self._weights.get(back, edge.weight) != edge.weight:
                raise Violation(
                    "weights", f"{key} weighs {edge.weight} at one end and {self._weights[back]} at the other"
                )
            self._weights[key] = edge.weight
            self._times.setdefault(key, self._world.now)
            self._mixed_with[host.device, edge.peer] = self._world.now
        self._mixes.setdefault(host.device, []).append(self._world.now)
        residual = self._world.problem.residual(before, terms, mixed.value)
        if residual > mixed.tail + RESIDUAL * (1.0 + self._world.problem.distance(before, mixed.value)):
            raise Violation("mean", f"a mix has lost {residual} where {mixed.tail} was cut")

    def rolled_back(self, host: Host) -> None:
        """A trainer goes back to the saved state: what it has mixed since is lost with its work, or mixed again.

        So is what an earlier saved state held, if that is lost itself.
        """
        saved = host.disk.newest()
        kept: AbstractSet[tuple[str, str]] = frozenset() if saved is None else saved.applied.keys()
        self._lost |= (host.trainer.applied.keys() | self._kept.get(host.device, frozenset())) - kept
        self._kept[host.device] = kept

    def cloned(self, name: str) -> None:
        """Two devices have this identity for a while: what they count cannot be told apart."""
        self._twins.add(name)

    # --- the end ---------------------------------------------------------------------------------------------

    def one_sided(self, until: float) -> tuple[int, int, int]:
        """Return the edges mixed before ``until``, those that count at one end only, and those without a reason.

        A reason is that the other end has lost its mix with the work of its round, that an end lost its receipts before
        both had heard each other, or that the other end had no round any more in which to count it.
        """
        total = lone = unreasoned = 0
        for host in self._world.hosts:
            for own, theirs in host.trainer.applied if host.up else ():
                (maker, published), time = self._makers[theirs], self._times.get((own, theirs), until)
                if time >= until or not maker.up or {maker.name, host.name} & self._twins:
                    continue
                total += 1
                if (theirs, own) not in maker.trainer.applied:
                    lone += 1
                    settled = time + self._world.plan.slowest + host.policy.wait_ceiling
                    counted = max(settled, self._second_mix(maker, time))  # the other end may be down, or slow
                    forgot = any(published <= lost <= settled for lost in host.losses)
                    forgot = forgot or any(published <= lost <= counted for lost in maker.losses)
                    last = not _goes_on_mixing(maker)
                    unreasoned += not (forgot or last) and (theirs, own) not in self._lost
        return total, lone, unreasoned

    def _second_mix(self, host: Host, after: float) -> float:
        """Return when the node has mixed twice after that time: by then it has counted what it could."""
        mixes = self._mixes.get(host.device, [])
        place = bisect_right(mixes, after) + 1
        return mixes[place] if place < len(mixes) else math.inf

    def finish(self, quiet_from: float) -> None:
        """The run is over: everyone who is up mixes with all neighbours again, and nobody hangs.

        Where neighbours change from round to round, one of them is enough. A node that declines edges is left out of
        the graph of those that it has told so, for a while: graphs differ, unless everyone is everyone's neighbour.
        Then any one node is enough, and none is asked for where neighbours change.
        """
        for host in self._world.hosts:
            if not host.up:
                raise Violation("liveness", f"{host.device} is not there any more, though nothing strikes")
            watched = self._watched[host.device]
            if isinstance(watched.phase, Exchanging):
                self._check_wait(host, watched, host.clock())
        graph = graph_of(self._world.plan.topology, {host.name for host in self._world.hosts if host.up})
        mixing = {host.name: host for host in self._world.hosts if _goes_on_mixing(host)}
        full = len(graph.candidates(graph.members[0])) == len(graph.members) - 1
        agreed = full or len(mixing) == len(self._world.hosts)
        for host in mixing.values() if agreed or not graph.varies else ():
            around = graph.candidates(host.name) if agreed else graph.members
            owed = [peer for peer in around if peer in mixing and peer != host.name]
            silent = [peer for peer in owed if self._mixed_with.get((host.device, peer), -1.0) < quiet_from]
            if silent and (silent == owed or (agreed and not graph.varies)):
                raise Violation("liveness", f"{host.device} has not mixed with {silent[0]} since {quiet_from:.0f} s")


def _goes_on_mixing(host: Host) -> bool:
    """Say whether the node owes its neighbours a mix: one that is done, or exchanges nothing, does not."""
    phase, limit = host.node.rounds.phase, host.policy.limit
    ends = isinstance(phase, Mixing | Saving) and phase.round == limit  # of its last round: it takes no edges any more
    return host.policy.exchange and not ends and not isinstance(phase, Done)
