"""What members tell each other of members.

After SWIM (Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process Group Membership Protocol",
2002): of two rumours about a member that of the later incarnation counts; only the member itself raises its own, to
contradict that it is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

KNOWN_AT_MOST = 256  # members of which a newcomer is told in one message: about 40 kB
NEWS_AT_MOST = 16  # fresh ones in one message: about 3 kB
ADDRESSES_AT_MOST = 3  # of a member in one rumour, best first; more are hardly ever of use to another host
INCARNATIONS = 2**48  # so many numbers, in a circle: above each there is one, so every lie can be contradicted


def is_later(one: int, other: int) -> bool:
    """Say whether incarnation ``one`` comes after ``other``: it is up to half of the circle ahead.

    Source: RFC 1982, serial number arithmetic. Of two that are just half of it apart neither is later.
    """
    return 0 < (one - other) % INCARNATIONS < INCARNATIONS // 2


class Standing(IntEnum):
    """Where a member stands. Of two rumours of one incarnation the higher counts.

    LOST: it was silent when probed; it may contradict. LEFT: it said goodbye.
    """

    HERE = 1
    LOST = 2
    LEFT = 3


@dataclass(frozen=True, slots=True)
class Rumour:
    """What is told of one member. schema: empty while its trainer is loading; addresses: ``host:port``, best first."""

    peer: str
    standing: Standing
    incarnation: int = 0
    name: str = ""
    schema: str = ""
    addresses: tuple[str, ...] = ()

    def beats(self, other: Rumour) -> bool:
        """Say whether this one counts and the other, of the same member, no longer does."""
        if self.incarnation != other.incarnation:
            return is_later(self.incarnation, other.incarnation)
        return self.standing > other.standing


@dataclass(frozen=True, slots=True)
class News:
    """What goes along with a hello and its answer.

    incarnation: the teller's own
    digest:      of those that it holds to be here, itself among them, 64 bits a bucket of members, in the byte order
                 of this machine; a bucket's are equal where two nodes agree on it; empty from a node that does not say
    rumours:     what is to be told on; at most ``NEWS_AT_MOST``, and one of the hearer itself
    known:       in an answer: members of the buckets in which the two differ; at most ``KNOWN_AT_MOST``
    """

    incarnation: int = 0
    digest: bytes = b""
    rumours: tuple[Rumour, ...] = ()
    known: tuple[Rumour, ...] = ()


NO_NEWS = News()
