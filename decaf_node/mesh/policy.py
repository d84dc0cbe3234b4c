"""What a node is told once, at its start: everything that its decisions depend on besides events and time."""

from __future__ import annotations

from dataclasses import dataclass

PROBES_A_ROUND = 2  # of each neighbour; its edge, and what it asks of us, make most of them needless
PROBE_SOONEST, PROBE_LATEST = 5.0, 30.0  # seconds


def probe_interval(round_seconds: float) -> float:
    """Return how often to look after a neighbour, for rounds of this length (0: not known)."""
    return min(max(round_seconds / PROBES_A_ROUND, PROBE_SOONEST), PROBE_LATEST)


@dataclass(frozen=True)
class Policy:
    """Durations are seconds. The meaning of each is in ``settings.py`` under the same name."""

    topology: str = "full"
    exchange: bool = True  # False: the algorithm is ``local``
    overlap: bool = True
    adopt_after: float = 7 * 86400.0
    wait_floor: float = 1.0
    wait_ceiling: float = 120.0
    limit: int = 0
    save_every: float = 60.0
    snapshot_limit_bytes: int = 2048 * 1024 * 1024
    peer_limit: int = 1024
    adopt_from: int = 5
    unsaved_receipts: int = 64
    unsaved_bytes: int = 2048 * 1024 * 1024  # of snapshots that unsaved edges need, before a save is forced
    redial_backoff: float = 30.0
    probe_every: float = 5.0
    robust: str = "clip"
