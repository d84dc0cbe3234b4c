"""Whom to probe when: O(degree) + O(1) probes in an interval, however many members there are.

Near members, those that we look after, are probed every ``probe_every`` unless heard meanwhile: everyone in a small
mesh, in a larger one our neighbours and those with a stream. Of a pair the lower ID is first, and the other, which is
heard by it, need not probe at all. Of the far ones and of the gone ones a few in an interval:
each at intervals that stretch with their number, spread at random, and the gone with back-off, for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from random import Random

from decaf_node.mesh.member import Member
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.presence import GONE_SILENCES, Presence
from decaf_node.mesh.timers import Timers, earlier

NEAR_ALL = 16  # members up to which all are near: so many hellos in an interval cost nothing
FAR_PROBES = 2.0  # far members probed in an interval, on average: enough to carry rumours, and to find lost ones
GONE_PROBES_FAR = 1.0  # gone ones, of a large mesh, likewise
BURST = 8  # far and gone ones probed at one time, also where many are due: after a suspend, or a mass entry
SECOND = 1.25  # intervals after which the higher ID of a pair probes, if the lower one has not
SOONEST = 0.1  # seconds between two probes of one peer, whatever the settings say
DOUBLINGS = 16  # 2 ** this is longer than any back-off


class Probes:
    """When to probe each member. busy: those with a stream, as the edges know them."""

    def __init__(self, me: str, policy: Policy, presence: Presence, random: Random) -> None:
        self.near: set[str] = set()
        self.busy: Collection[str] = ()
        self._me = me
        self._policy = policy
        self._presence = presence
        self._random = random
        self._times = Timers()
        self._size = 0
        self._turn: float | None = None  # when to see anew who is near; never in a small mesh

    def added(self, member: Member, now: float) -> None:
        """There is a new member; ``at`` or ``again`` follows."""
        self._size += 1
        if self._size <= NEAR_ALL:
            self.near.add(member.peer)
        elif self._turn is None:
            self._turn = now

    def removed(self, member: Member) -> None:
        """It is no member any more."""
        self._size -= 1
        self.near.discard(member.peer)
        self._times.set(member.peer, float("inf"))

    # --- one member ------------------------------------------------------------------------------------------

    def at(self, member: Member, time: float) -> None:
        """Probe it at ``time`` (instead of any other)."""
        self._times.set(member.peer, time)

    def by(self, member: Member, time: float) -> None:
        """Probe it at ``time`` at the latest."""
        self._times.set(member.peer, min(time, self._times.get(member.peer)))

    def soon(self, member: Member, now: float) -> None:
        """Probe it at once, if it was not probed just now."""
        self.by(member, max(now, member.probed + SOONEST))

    def again(self, member: Member, now: float) -> None:
        """Probe it after its interval."""
        self._times.set(member.peer, now + self._interval(member, now))

    @property
    def interval(self) -> float:
        """The interval of a near member."""
        return max(self._policy.probe_every, SOONEST)

    def backoff(self, times: int) -> float:
        """Return how long to let a peer be that has failed so many times before."""
        longest = self._policy.probe_every * 2.0 ** min(times, DOUBLINGS)
        return max(min(longest, self._policy.redial_backoff) * self._random.uniform(0.5, 1.0), SOONEST)

    def _interval(self, member: Member, now: float) -> float:
        near = member.peer in self.near
        if not self._presence.is_here(member, now):
            backoff = self.backoff(max(member.silences - GONE_SILENCES, 0))
            return backoff if near else max(backoff, self._stretched(self._gone / GONE_PROBES_FAR))
        if near or member.silences:
            return self.interval if self._me < member.peer or member.silences else SECOND * self.interval
        return self._stretched((self._size - self._gone) / FAR_PROBES)

    @property
    def _gone(self) -> int:
        return self._size - len(self._presence.here)

    def _stretched(self, times: float) -> float:
        return self.interval * max(1.0, times) * self._random.uniform(0.5, 1.5)

    # --- all -------------------------------------------------------------------------------------------------

    def is_turn(self, now: float) -> bool:
        """Say whether to see anew who is near; ``look_around`` follows."""
        return self._turn is not None and self._turn <= now

    def look_around(self, neighbours: Iterable[str], members: dict[str, Member], now: float) -> list[Member]:
        """See who is near now; return those who were not before, or are not any more."""
        near = members.keys() & {*neighbours, *self.busy}
        changed = [members[peer] for peer in sorted(near ^ self.near)]
        self.near = near
        self._turn = now + self.interval
        return changed

    def due(self, members: dict[str, Member], now: float) -> list[str]:
        """Return the peers to probe now, sorted; their next time is set."""
        peers, spare = [], BURST
        for peer in self._times.pop(now):
            member = members[peer]
            spare -= peer not in self.near
            if spare >= 0 or peer in self.near:
                member.probed = now
                peers.append(peer)
            self.again(member, now)
        return peers

    def deadline(self) -> float | None:
        """When ``due`` has something next, or it is turn."""
        return earlier(self._times.first(), self._turn)
