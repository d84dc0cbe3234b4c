"""What is known of one peer."""

from __future__ import annotations

from collections import deque

from decaf_node.mesh.deadlines import Arrivals

NEVER = float("-inf")
FOR_EVER = float("inf")
USED = 32  # snapshots of one member remembered as counted


class Member:
    """One peer. What decides whether it is here is changed by ``Membership`` alone, which keeps account of it."""

    name: str = ""
    schema: str = ""  # empty: not known yet, its trainer is loading
    round: int = 0
    addresses: tuple[str, ...] = ()
    heard: float | None = None
    quiet_since: float = NEVER  # since when we wait to hear it: not at all (infinity) while others look after it
    gone_at: float = FOR_EVER  # when a goodbye, or a rumour that it is gone, counts
    silences: int = 0
    incarnation: int = 0  # what it said last of itself
    accused: bool = False  # we have told that it is lost, and not heard it since
    problem: str = ""
    probed: float = NEVER
    declined_until: float = NEVER  # it wants no edges: no neighbour until then
    refused_until: float = NEVER  # a snapshot of its, or of ours, was no good: no edge until then
    refusals: int = 0
    newcomer: bool = False  # its last offer said that it has never mixed
    weight: float | None = None
    distance: float | None = None
    plain_distance: float | None = None
    harm: float | None = None
    clip_factor: float | None = None  # what these left of its weight
    mixes: int = 0
    learned: Arrivals | None = None
    _used: deque[str] | None = None

    def __init__(self, peer: str) -> None:
        self.peer = peer

    def use(self, digest: str) -> None:
        """An edge with this snapshot of its counts: no other does."""
        if self._used is None:
            self._used = deque(maxlen=USED)
        self._used.append(digest)

    def has_used(self, digest: str) -> bool:
        """Say whether an edge with this snapshot of its has counted."""
        return self._used is not None and digest in self._used

    @property
    def arrivals(self) -> Arrivals:
        """Return what its edges have taught. Most of many members never have one, and need no room for it."""
        if self.learned is None:
            self.learned = Arrivals()
        return self.learned
