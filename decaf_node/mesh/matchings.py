"""Graphs of one partner a turn: a sequence of matchings that is gone through over and over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

Link = tuple[int, int, float | None]  # two places, and the weight of their edge; None: as Metropolis has it, 1/2


@dataclass(frozen=True)
class Matching:
    """Who is whose partner in one turn; a place in no link has none."""

    links: tuple[Link, ...]

    def partners(self) -> dict[int, dict[int, float | None]]:
        """Return the links by place, from both sides."""
        there = {one: {other: weight} for one, other, weight in self.links}
        return there | {other: {one: weight} for one, other, weight in self.links}


def one_peer(size: int) -> list[Matching]:
    """Return a symmetric counterpart of the one-peer exponential graph (arXiv 2110.13363), which is directed.

    Of ``2**m`` members the partner in turn t is ``here XOR 2**t``, a hypercube's: any m turns in a row average
    exactly. Of other numbers it is ``(c - here) mod size`` with c = 1, 3, 7, 15, ...: two such reflections in a row
    move half a value by a power of two, as the directed graph does. The period is gone through twice, the second time
    shifted by the largest power of two: of the sequences tried (hypercube with gaps, pairs along each distance) it
    contracts best for most sizes. Nothing is exact then; ``base_two`` is.
    """
    powers = [2**power for power in range((size - 1).bit_length())]
    if not powers:
        return [Matching(())]
    if size == 2 * powers[-1]:
        return [_pairs((here, here ^ power) for here in range(size)) for power in powers]
    sums = [2 * power - 1 + shift for shift in (0, powers[-1]) for power in powers]
    return [_pairs((here, (total - here) % size) for here in range(size)) for total in sums]


def one_peer_period(size: int) -> int:
    """Return how many turns ``one_peer`` has, without building them."""
    powers = max(1, (size - 1).bit_length())
    return powers if size & (size - 1) == 0 else 2 * powers


def base_two_period(size: int) -> int:
    """Return how many turns ``base_two`` has, without building them."""
    odd = size // (size & -size)
    inside = 2 * (odd.bit_length() - 1) + 1 if odd > 1 else 0
    return max(1, inside + (size // odd - 1).bit_length())


def base_two(size: int) -> list[Matching]:
    """Return the Base-2 graph: after one period every member holds the mean of all, for any number of them.

    ``size = 2**m * odd``: blocks of the odd size average each by themselves, then across, as a hypercube does.
    Source: arXiv 2305.11420, algorithms 2 and 3 for k = 1.
    """
    odd = size // (size & -size)
    blocks = [range(start, start + odd) for start in range(0, size, odd)]
    inside = [list(chain(*turn)) for turn in zip(*(_simple_base_two(block) for block in blocks), strict=True)]
    across = [
        [
            (one, other, 0.5)
            for here, there in _cube(range(len(blocks)), power)
            for one, other in zip(blocks[here], blocks[there], strict=True)
        ]
        for power in range((len(blocks) - 1).bit_length())
    ]
    return [Matching(tuple(links)) for links in (*inside, *across)] or [Matching(())]


def _simple_base_two(block: range) -> list[list[Link]]:
    """Return the turns after which the members of a block of odd size all hold their mean.

    The block is cut into parts of falling powers of two. First each part averages by itself. Then each in turn meets
    all later parts, with the weight that leaves the mean of everything in those, and averages by itself again.
    """
    parts = _parts(block)
    first = len(parts[0]).bit_length() - 1
    return [
        [link for at in range(len(parts)) for link in _turn_of_part(parts, at, turn, first)]
        for turn in range(2 * first + 1 if len(parts) > 1 else 0)
    ]


def _turn_of_part(parts: Sequence[range], at: int, turn: int, first: int) -> list[Link]:
    part, rest = parts[at], list(chain(*parts[at + 1 :]))
    powers = len(part).bit_length() - 1
    since = turn - first - at  # it meets the later parts
    if turn < first:
        return _halves(_cube(part, turn % powers)) if powers else []
    if since == 0 and rest:
        weight = len(part) / (len(part) + len(rest))
        idle = part[len(rest) :]  # they hold the same by now; nodes that train on do not
        met: list[Link] = [(one, other, weight) for one, other in zip(part, rest, strict=False)]
        return met + _halves(zip(idle[::2], idle[1::2], strict=False))
    return _halves(_cube(part, since - 1)) if 0 < since <= powers else []


def _parts(block: range) -> list[range]:
    """Cut the block into parts of falling powers of two."""
    parts = []
    while block:
        size = 1 << (len(block).bit_length() - 1)
        parts.append(block[:size])
        block = block[size:]
    return parts


def _cube(part: range, power: int) -> list[tuple[int, int]]:
    """Return the pairs of a hypercube along one of its directions."""
    step = 1 << power
    return [(part[at], part[at + step]) for at in range(len(part)) if not at & step]


def _halves(pairs: Iterable[tuple[int, int]]) -> list[Link]:
    return [(one, other, 0.5) for one, other in pairs]


def _pairs(partners: Iterable[tuple[int, int]]) -> Matching:
    """Return the matching of these partners, given from both sides; who is his own has none."""
    return Matching(tuple((one, other, None) for one, other in partners if one < other))
