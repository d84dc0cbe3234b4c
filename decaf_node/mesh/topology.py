"""Who mixes with whom, and in which turn: the same answer at every node that knows the same members.

full:                 everyone.
ring:                 the next lower and the next higher ID, the ends joined.
torus:                rows x columns, as square as the number of members allows; of a prime number it is a ring.
exponential:          those 1, 2, 4, ... places away, on both sides; static and symmetric.
random-regular:       the neighbours on a few rings, each hashed in an order of its own. A join or a leave concerns
                      few nodes, as on a ring; the other sparse graphs count places in the sorted list, which shift.
one-peer-exponential: one partner a turn; see ``matchings.one_peer``.
base-k:               one partner a turn with a weight of its own: the Base-2 graph; see ``matchings.base_two``.
auto:                 full up to ``FULL_UP_TO`` members, random-regular beyond. Of the static graphs that contracts best
                      a byte from 32 members on; below, torus and exponential do, but many of their edges change with
                      every join (``benchmarks/topologies.py``). One partner a turn would contract best a byte at any
                      number, but only while all nodes keep pace.

While lists of members differ, graphs do: an edge then needs both ends to be willing, so edges stay symmetric anyway.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

from decaf_node.mesh import fixed_graphs as fixed
from decaf_node.mesh import matchings

FULL_UP_TO = 8  # members, in topology auto
GRAPHS = 256  # kept: every node of a simulation asks for the same few

Links = Callable[[int], Mapping[int, float | None]]
"""From a member's place in the sorted list to those of its neighbours, with the weights that the graph prescribes."""

TOPOLOGIES = (
    "auto",
    "full",
    "ring",
    "torus",
    "exponential",
    "random-regular",
    "one-peer-exponential",
    "base-k",
)


@dataclass(frozen=True, eq=False)
class Graph:
    """The graph of these members, sorted. links: one a turn, over and over; varies: whether turns matter at all."""

    members: tuple[str, ...]
    links: tuple[Links, ...]
    varies: bool = False

    @property
    def turns(self) -> int:
        """After how many turns it begins again."""
        return len(self.links)

    def neighbours(self, me: str, turn: int = 0) -> tuple[str, ...]:
        """Return whom ``me`` mixes with in this turn, sorted."""
        return tuple(sorted(self._linked(me, turn)))

    def candidates(self, me: str) -> tuple[str, ...]:
        """Return whom ``me`` mixes with in any turn, sorted."""
        return tuple(sorted({peer for turn in range(self.turns) for peer in self._linked(me, turn)}))

    def capacity(self, me: str) -> int:
        """Return the most neighbours that ``me`` has in one turn."""
        return max(len(self._linked(me, turn)) for turn in range(self.turns))

    def weight(self, one: str, other: str, turn: int) -> float | None:
        """Return the weight that the graph prescribes for this edge; None without one, and where Metropolis' holds."""
        return self._linked(one, turn).get(other)

    def _linked(self, me: str, turn: int) -> dict[str, float | None]:
        links = self.links[turn % self.turns](bisect_left(self.members, me))
        return {self.members[place]: weight for place, weight in links.items()}


def graph_of(topology: str, members: Iterable[str]) -> Graph:
    """Return the graph of these members, in whatever order they come."""
    return graph(topology, tuple(sorted(set(members))))


def in_use(topology: str, size: int) -> str:
    """Return which graph ``topology`` means for so many members."""
    if topology != "auto":
        return topology
    return "full" if size <= FULL_UP_TO else "random-regular"


@lru_cache(maxsize=GRAPHS)
def graph(topology: str, members: tuple[str, ...]) -> Graph:
    """Return the graph of these members, sorted and each once."""
    size = len(members)
    match topology:
        case "auto":
            return graph(in_use(topology, size), members)
        case "full":
            return Graph(members, (partial(fixed.everyone, size),))
        case "ring":
            return Graph(members, (partial(fixed.around, size, (1,)),))
        case "torus":
            return Graph(members, (partial(fixed.torus, size),))
        case "exponential":
            return Graph(members, (partial(fixed.around, size, fixed.powers_of_two(size)),))
        case "random-regular":
            return Graph(members, (fixed.HashedRings(members),))
        case "one-peer-exponential":
            return Graph(members, _by_turn(matchings.one_peer(size)), varies=True)
        case "base-k":
            return Graph(members, _by_turn(matchings.base_two(size)), varies=True)
        case _:
            raise ValueError(f"no topology is called {topology!r}")


def longest_period(topology: str, most: int) -> int:
    """Return after how many turns a graph of up to ``most`` members begins again at the latest; 0: it never varies."""
    period = _PERIODS.get(topology)
    return 0 if period is None else max(map(period, range(1, most + 1)))


_PERIODS: dict[str, Callable[[int], int]] = {
    "one-peer-exponential": matchings.one_peer_period,
    "base-k": matchings.base_two_period,
}


def _by_turn(turns: Iterable[matchings.Matching]) -> tuple[Links, ...]:
    return tuple(partial(_partner, matching.partners()) for matching in turns)


def _partner(partners: Mapping[int, Mapping[int, float | None]], here: int) -> Mapping[int, float | None]:
    return partners.get(here, {})
