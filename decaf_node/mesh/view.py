"""What a node shows of itself to those who watch it: plain values, made by ``Node.view(now)``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PeerView:
    """One member as this node sees it. state: alive, late or gone. heard: seconds since it was last heard, or None.

    weight: of the last edge mixed; distance, plain_distance: of its last snapshot to ours; harm: what it does to our
    held-out loss, where that is tried; clip_factor: what these left of its weight; left: it has said goodbye
    """

    peer: str
    name: str
    state: str
    addresses: tuple[str, ...]
    neighbour: bool
    round: int
    heard: float | None
    weight: float | None
    distance: float | None
    plain_distance: float | None
    harm: float | None
    clip_factor: float | None
    mixes: int
    problem: str
    left: bool = False


@dataclass(frozen=True)
class NodeView:
    """phase: starting, training, exchanging, mixing, saving, adopting, paused, done, stopping or stopped.

    next_mix: the round that is mixed next; None where none is to be
    """

    phase: str
    round: int
    mixes: int
    degree: int
    waiting_for: tuple[str, ...]
    saved_round: int
    peers: tuple[PeerView, ...]
    next_mix: int | None = None
