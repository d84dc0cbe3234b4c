"""Who mixes with whom: members in, neighbours out, the same answer at every node that knows the same members."""

from __future__ import annotations

from collections.abc import Iterable

TOPOLOGIES = ("full", "ring")


def neighbours(topology: str, members: Iterable[str], me: str) -> tuple[str, ...]:
    """Return the neighbours of ``me`` among ``members`` (with or without ``me`` itself), sorted.

    full: everyone. ring: the next lower and the next higher ID, the ends joined; two nodes have one edge.
    """
    ordered = sorted({*members, me})
    match topology:
        case "full":
            return tuple(member for member in ordered if member != me)
        case "ring":
            here = ordered.index(me)
            around = {ordered[here - 1], ordered[(here + 1) % len(ordered)]}
            return tuple(sorted(around - {me}))
        case _:
            raise ValueError(f"no topology is called {topology!r}")
