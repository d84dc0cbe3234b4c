"""Who is here: alive, late or gone as functions of now; and the sets of those, kept without looking at everyone.

A member that we look after ourselves (``probes.py``) is alive while it was heard of late, late when it is quiet or a
probe failed, gone after several failed probes or a long quiet. Any other is here until a rumour or a probe says not.
A goodbye counts at once, a rumour that a member is lost after a while, in which it may contradict.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from math import nextafter

from decaf_node.mesh.member import FOR_EVER, Member
from decaf_node.mesh.timers import Timers

ALIVE_PROBES = 3  # quiet for so many probe intervals: late
GONE_PROBES = 12  # quiet for so many: gone
GONE_SILENCES = 3  # failed probes in a row: gone


class Presence:
    """The sets of members.

    Invariant: at the time of the last ``touch`` or ``pass_time``, ``here`` holds those that are alive or late and
    ``willing`` those of them that want edges. For that, ``touch`` follows every change of a member, and ``_changes``
    holds for each the earliest time at which it changes sides by itself. ``version`` grows whenever one of them,
    or what else makes a neighbour, changes.
    """

    def __init__(self, members: dict[str, Member], probe_every: float) -> None:
        self.here: set[str] = set()
        self.willing: set[str] = set()
        self._sorted: list[str] = []  # the willing ones
        self._schemas: dict[str, int] = {}  # how many of them train which
        self.version = 0
        self._late_after = ALIVE_PROBES * probe_every
        self._gone_after = GONE_PROBES * probe_every
        self._members = members
        self._changes = Timers()

    def state(self, member: Member, now: float) -> str:
        """Return ``alive``, ``late`` or ``gone``."""
        if not self.is_here(member, now):
            return "gone"
        doubted = member.silences > 0 or member.gone_at < FOR_EVER
        return "late" if doubted or now > member.quiet_since + self._late_after else "alive"

    def is_here(self, member: Member, now: float) -> bool:
        """Alive or late."""
        return (
            member.silences < GONE_SILENCES and now < member.gone_at and not now > member.quiet_since + self._gone_after
        )

    def was_heard_of_late(self, member: Member, now: float) -> bool:
        """We have heard it ourselves, and not long ago."""
        return member.heard is not None and now <= member.heard + self._late_after

    def touch(self, member: Member, now: float) -> None:
        """Something about the member has changed: put it where it belongs."""
        here = self.is_here(member, now)
        if here != (member.peer in self.here):
            self.here ^= {member.peer}
            self.version += 1
        if (here and now >= member.declined_until) != (member.peer in self.willing):
            self._turn(member)
        self._changes.set(member.peer, self._next_change(member, now) if here else FOR_EVER)

    def forget(self, member: Member) -> None:
        """It is no member any more."""
        self.version += 1
        self.here.discard(member.peer)
        if member.peer in self.willing:
            self._turn(member)
        self._changes.set(member.peer, FOR_EVER)

    def train(self, member: Member, schema: str) -> None:
        """The member trains another schema than we knew."""
        if member.peer in self.willing:
            self._count(member.schema, -1)
            self._count(schema, 1)
        member.schema = schema
        self.version += 1

    def willing_to_train(self, schema: str) -> list[str]:
        """Return the willing members of this schema, sorted. One not known yet passes: of theirs, or ours."""
        if not schema or self._schemas.get("", 0) + self._schemas.get(schema, 0) == len(self._sorted):
            return self._sorted
        return [peer for peer in self._sorted if self._members[peer].schema in ("", schema)]

    def _turn(self, member: Member) -> None:
        """A member that was not willing is so now, or the other way round."""
        if member.peer in self.willing:
            self.willing.remove(member.peer)
            del self._sorted[bisect_left(self._sorted, member.peer)]
            self._count(member.schema, -1)
        else:
            self.willing.add(member.peer)
            insort(self._sorted, member.peer)
            self._count(member.schema, 1)
        self.version += 1

    def _count(self, schema: str, change: int) -> None:
        self._schemas[schema] = self._schemas.get(schema, 0) + change
        if not self._schemas[schema]:
            del self._schemas[schema]

    def pass_time(self, now: float) -> None:
        """Let happen what happens by itself up to now."""
        while (first := self._changes.first()) is not None and first <= now:
            for peer in self._changes.pop(now):
                self.touch(self._members[peer], now)

    def _next_change(self, member: Member, now: float) -> float:
        gone = min(member.gone_at, nextafter(member.quiet_since + self._gone_after, FOR_EVER))
        return min(gone, member.declined_until) if now < member.declined_until else gone
