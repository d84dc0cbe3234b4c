"""A graph as a whole, for people: who is linked to whom. No node needs it to decide anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from decaf_node.mesh.topology import Graph


@dataclass(frozen=True)
class Link:
    """Two members that mix, the lower ID first. current: in this turn."""

    one: str
    other: str
    current: bool


@dataclass(frozen=True)
class Outline:
    """degrees: links of each member, of all turns; links: the first of them; count: how many there are."""

    degrees: dict[str, int]
    links: tuple[Link, ...]
    count: int


@lru_cache(maxsize=1)
def outline_of(graph: Graph, me: str, turn: int, at_most: int) -> Outline:
    """Return the outline of ``graph``, with no more than ``at_most`` links, those of ``me`` first.

    turn: the one for which ``me`` has published; 0 before the first, when no link of a graph that varies is current
    """
    around = {member: graph.candidates(member) for member in graph.members}
    pairs = islice(_pairs(around, me), at_most)
    links = tuple(Link(one, other, _is_current(graph, one, other, turn)) for one, other in pairs)
    degrees = {member: len(others) for member, others in around.items()}
    return Outline(degrees, links, sum(degrees.values()) // 2)


def _pairs(around: dict[str, tuple[str, ...]], me: str) -> Iterator[tuple[str, str]]:
    """Yield every link once: the lower ID and the higher one."""
    yield from (((me, other) if me < other else (other, me)) for other in around[me])
    for one, others in around.items():
        yield from ((one, other) for other in others if one < other and me not in (one, other))


def _is_current(graph: Graph, one: str, other: str, turn: int) -> bool:
    return not graph.varies or (turn > 0 and other in graph.neighbours(one, turn))
