"""When a stream is opened to whom: at once or knocking, and again after a break."""

from __future__ import annotations

from random import Random

from decaf_node.mesh import events as ev
from decaf_node.mesh.deadlines import Deadlines
from decaf_node.mesh.events import Effect
from decaf_node.mesh.membership import Membership
from decaf_node.mesh.published import KNOCK, RETRY, TRIES, Published, Try
from decaf_node.mesh.sessions import Opened
from decaf_node.mesh.streams import Streams


class Openings:
    """Opens the streams of the node ``me``. next: when ``due`` has something next."""

    def __init__(self, me: str, members: Membership, deadlines: Deadlines, random: Random, streams: Streams) -> None:
        self.next: float | None = None
        self._me = me
        self._members = members
        self._deadlines = deadlines
        self._random = random
        self._streams = streams

    def publish(self, published: Published) -> None:
        """Plan the streams of a snapshot, and how long each of its peers is waited for."""
        now = published.at
        published.until = {peer: now + self._wait(peer) for peer in published.slots}
        for peer in sorted(published.partners | published.reminded):
            opened = self._streams.is_open(peer)  # nobody has answered: open it again
            published.tries[peer] = Try(now if opened else now + self._knock(peer))

    def due(self, now: float) -> list[Effect]:
        """Open what is to be opened now: at first, again after a break, or knocking."""
        effects: list[Effect] = []
        openable = self._openable(now)
        self.next = min((at for at in openable.values() if at > now), default=None)
        for peer, at in sorted(openable.items()):
            if at <= now:
                assert self._streams.published is not None
                ours = self._streams.published.offer(self._streams.mixes)
                self._streams.sessions[peer] = Opened(ours)
                self._streams.published.tries[peer] = self._streams.published.tries[peer].opened()
                effects.append(ev.OpenEdge(peer, ours, self._streams.unheard.of(peer)))
        return effects

    def _openable(self, now: float) -> dict[str, float]:
        """Return the peers to which a stream may be opened, and when."""
        published = self._streams.published
        if published is None:
            return {}
        times: dict[str, float] = {}
        for peer, attempt in published.tries.items():
            if peer in self._streams.sessions or attempt.times >= TRIES:
                continue
            reminded = peer in published.reminded and self._streams.unheard.of(peer)
            if not (reminded or self._streams.has_room_for(peer) or self._streams.half_open(peer)):
                continue
            member = self._members.get(peer)
            if member is not None and self._members.is_here(member, now) and now >= member.declined_until:
                times[peer] = max(attempt.at, member.refused_until)
        return times

    def retry(self, peer: str, now: float) -> None:
        published = self._streams.published
        if published is not None and peer in published.tries:
            times = published.tries[peer].times
            pause = RETRY * 2.0**times * self._random.uniform(0.5, 1.0)
            published.tries[peer] = Try(now + pause + self._knock(peer), times)

    def _wait(self, peer: str) -> float:
        """Return how long after publishing the peer is waited for."""
        member = self._members.get(peer)
        return 0.0 if member is None else self._deadlines.wait(member.arrivals)

    def _knock(self, peer: str) -> float:
        """Return how long to let the peer open the stream: the lower ID opens at once."""
        return 0.0 if self._me < peer else KNOCK * self._wait(peer)
