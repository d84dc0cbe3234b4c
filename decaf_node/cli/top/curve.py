"""Curves in characters: bars of eighths of a line, or plain ASCII where the terminal has no others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " .:|"


class Curve(NamedTuple):
    """The highest line first; what its bars stand for, from left to right."""

    text: list[str]
    shown: list[float | None]


def curve(values: Sequence[float | None], width: int, height: int, bars: str = BLOCKS) -> Curve:
    """Return ``height`` lines of at most ``width`` characters, the oldest value on the left.

    What does not fit is averaged: each character stands for as many values as the others. None, or what is no finite
    number, is a gap. bars: an empty character, then ever fuller ones.
    """
    shown = thinned(values, width)
    known = [value for value in shown if value is not None]
    if not known:
        return Curve([""] * height, shown)
    full = len(bars) - 1
    steps = [0 if value is None else _steps(value, min(known), max(known), full * height) for value in shown]
    lines = ["".join(bars[max(0, min(full, it - full * line))] for it in steps) for line in reversed(range(height))]
    return Curve(lines, shown)


def thinned(values: Sequence[float | None], width: int) -> list[float | None]:
    """Return at most ``width`` means of neighbouring values; None where there is none among them."""
    each = max(1, math.ceil(len(values) / max(1, width)))
    return [_mean(values[start : start + each]) for start in range(0, len(values), each)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _steps(value: float, low: float, high: float, most: int) -> int:
    """Return from 1 to ``most`` for a value from low to high; the middle where they are all alike."""
    if high == low:
        return (most + 1) // 2
    return 1 + round((value - low) / (high - low) * (most - 1))
