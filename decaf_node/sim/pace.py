"""How long a round of a simulated node takes."""

from __future__ import annotations

SHORTEST, LONGEST = 0.8, 1.25  # of a node's pace


def mean_length(pace: float) -> float:
    """Return how long a round of such a node takes on average, in seconds."""
    return pace * (SHORTEST + LONGEST) / 2
