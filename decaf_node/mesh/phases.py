"""The phases of a node: one frozen dataclass each, with just what holds in it.

``round`` is the round in progress, counted from 1. A phase says what is awaited of the trainer; the edges of the
last published snapshot go on through all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from decaf_node.mesh.adoption import Ask
from decaf_node.mesh.events import Edge, Snapshot


@dataclass(frozen=True)
class Starting:
    """No trainer yet, or none any more."""

    round: int


@dataclass(frozen=True)
class Training:
    """``RoundTrained`` is awaited."""

    round: int


@dataclass(frozen=True)
class Exchanging:
    """Published; the edges are awaited, each until its deadline."""

    round: int


@dataclass(frozen=True)
class Mixing:
    """``RoundMixed`` is awaited; ``edges`` are being mixed."""

    round: int
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Saving:
    """``RoundSaved`` is awaited. The trainer trains on: ``trained`` is what it has published meanwhile."""

    round: int
    trained: Snapshot | None = None


@dataclass(frozen=True)
class Adopting:
    """A newcomer that asks members for their state, until ``until``, and ``at_last`` where nothing is here by then.

    chosen_from: empty while snapshots are fetched; then those given to the trainer, and ``StateAdopted`` is awaited.
    """

    round: int
    until: float
    at_last: float
    asks: tuple[Ask, ...]
    chosen_from: tuple[Ask, ...] = ()


@dataclass(frozen=True)
class Done:
    """``policy.limit`` rounds are mixed. retry: when to save again what could not be saved."""

    round: int
    retry: float | None = None


@dataclass(frozen=True)
class Stopping:
    """On the way out: ``mixing`` is awaited first if it is not None, then the save."""

    round: int
    mixing: tuple[Edge, ...] | None = None


@dataclass(frozen=True)
class Stopped:
    round: int


@dataclass(frozen=True)
class Paused:
    """The trainer stands still and edges are refused; what was under way in ``inner`` comes to its end."""

    inner: Inner

    @property
    def round(self) -> int:
        return self.inner.round


Inner = Starting | Training | Exchanging | Mixing | Saving | Adopting | Done | Stopping | Stopped
Phase = Inner | Paused


def digests_of(phase: Inner) -> set[str]:
    """Return the snapshots that the trainer works with in this phase, or may be given."""
    match phase:
        case Saving(trained=Snapshot(digest)):
            return {digest}
        case Mixing(edges=edges) | Stopping(mixing=tuple() as edges):
            return {digest for edge in edges for digest in (edge.own, edge.theirs)}
        case Adopting(asks=asks):
            return {ask.digest for ask in asks if ask.digest and ask.stage != "failed"}
    return set()
