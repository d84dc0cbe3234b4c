"""What a plan is asked for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from decaf_node.errors import UsageError

UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Wish:
    """What is given on the command line; None: see elsewhere. link: bytes a second."""

    model: Path | None
    rank: int | None
    nodes: int | None
    graph: str | None
    link: float | None
    step_seconds: float | None
    measure: bool
    skewed: bool


def rate_of(text: str) -> float:
    """Return the bytes a second of ``100Mbit``, ``1Gbit/s`` or ``2MB``. Raises UsageError ``plan.bad-link``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMG]?)(bit|B)(?:/s)?", text)
    rate = float(found[1]) * UNITS[found[2]] / (8 if found[3] == "bit" else 1) if found else 0.0
    if not 0 < rate < math.inf:
        raise UsageError("plan.bad-link", f"{text!r} is no speed of a link; write it as 100Mbit, 1Gbit or 2MB.")
    return rate
