"""Graphs that stay the same from turn to turn: from a place in the sorted list of members to those of its neighbours.

No edge has a weight of its own: Metropolis' holds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from math import isqrt

RINGS = 3  # of random-regular: degree about 6
POSITIONS = 2**16  # hashes kept

Unweighted = dict[int, None]


def everyone(size: int, here: int) -> Unweighted:
    """Return all other places."""
    return dict.fromkeys(place for place in range(size) if place != here)


def around(size: int, distances: Iterable[int], here: int) -> Unweighted:
    """Return the places at these distances on both sides, the ends of the list joined."""
    places = {(here + side * distance) % size for distance in distances for side in (-1, 1)}
    return dict.fromkeys(sorted(places - {here}))


def powers_of_two(size: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... below ``size``."""
    return tuple(2**power for power in range((size - 1).bit_length()))


def torus(size: int, here: int) -> Unweighted:
    """Return the places above, below, left and right on a grid with joined ends. One row is a ring."""
    rows = next(rows for rows in range(isqrt(size), 0, -1) if size % rows == 0)
    columns = size // rows
    row, column = divmod(here, columns)
    beside = around(columns, (1,), column)
    above = around(rows, (1,), row)
    return dict.fromkeys([*(row * columns + other for other in beside), *(other * columns + column for other in above)])


class HashedRings:
    """The neighbours of each member on several rings, on each of which a hash of its ID puts it.

    A member that joins comes between two others on each ring: at most 2 * rings nodes notice. A union of random rings
    is, for many members, nearly as good an expander as a graph of its degree can be. Source: Law and Siu, "Distributed
    construction of random expander networks", 2003.
    """

    def __init__(self, members: Sequence[str], rings: int = RINGS) -> None:
        self._members = members
        self._rings = rings
        self._circles: list[list[int]] = []  # of places, each in the order of a ring; none before they are needed

    def __call__(self, here: int) -> Unweighted:
        """Return the places of the neighbours of ``here``."""
        if not self._circles:
            self._circles = [self._circle(ring) for ring in range(self._rings)]
        links: Unweighted = {}
        for ring, circle in enumerate(self._circles):
            at = self._find(ring, circle, here)
            links[circle[at - 1]] = links[circle[(at + 1) % len(circle)]] = None
        links.pop(here, None)
        return links

    def _circle(self, ring: int) -> list[int]:
        return sorted(range(len(self._members)), key=lambda place: _position(ring, self._members[place]))

    def _find(self, ring: int, circle: Sequence[int], here: int) -> int:
        own = _position(ring, self._members[here])
        return bisect_left(circle, own, key=lambda place: _position(ring, self._members[place]))


@lru_cache(maxsize=POSITIONS)
def _position(ring: int, member: str) -> bytes:
    return sha256(f"{ring}:{member}".encode()).digest()
