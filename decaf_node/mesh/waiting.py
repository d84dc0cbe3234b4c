"""Whom the mix of a round waits for, and what is learned from who came."""

from __future__ import annotations

from decaf_node.mesh.edges import Edges
from decaf_node.mesh.membership import Membership
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.published import Published
from decaf_node.mesh.sessions import Promised


class Waiting:
    """Looks at the edges of the last published snapshot."""

    def __init__(self, policy: Policy, members: Membership, edges: Edges) -> None:
        self._policy = policy
        self._members = members
        self._edges = edges

    def awaited(self, now: float, last: bool) -> tuple[tuple[str, float], ...]:
        """Return the peers whose edge the mix waits for, each with its deadline.

        In the ``last`` round there is no later mix, so what is promised is waited for up to the ceiling.
        """
        published = self._edges.published
        if published is None:
            return ()
        until = {peer: published.until[peer] for peer in self._hoped_for(published, now)}
        if last:
            ceiling = published.at + self._policy.wait_ceiling
            sessions = self._edges.sessions.items()
            until |= {peer: ceiling for peer, session in sessions if isinstance(session, Promised)}
            half_open = (self._members.get(peer) for peer in published.promised if self._edges.half_open(peer))
            until |= {one.peer: ceiling for one in half_open if one is not None and self._members.is_here(one, now)}
        return tuple((peer, until[peer]) for peer in sorted(until) if now < until[peer])

    def learn(self, now: float) -> None:
        """The mix begins: remember who was there and who was waited for in vain."""
        published = self._edges.published
        assert published is not None, "nothing is mixed before something is published"
        for peer in published.settled:
            if (member := self._members.get(peer)) is not None:
                member.arrivals.met()
        for peer in self._hoped_for(published, now):
            if (member := self._members.get(peer)) is not None:
                member.arrivals.missed()
        published.give_up_all()

    def _hoped_for(self, published: Published, now: float) -> list[str]:
        """Return the peers whose edge may still come: a stream is up, or they are here to open one."""
        members = [self._members.get(peer) for peer in published.awaited()]
        return [
            member.peer
            for member in members
            if member is not None
            and not self._edges.is_crowded_out(member.peer)
            and (member.peer in self._edges.sessions or self._members.is_here(member, now))
        ]
