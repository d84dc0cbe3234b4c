"""A history of any length in as many points as a picture can show: memory does not grow with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from decaf_node.daemon.reports import RoundReport

MOST = 512  # groups of rounds, for each a point

Value = Callable[[RoundReport], float | None]

VALUES: Mapping[str, Value] = {
    "loss": lambda row: row.loss if row.steps else None,
    "evaluation_loss": lambda row: row.evaluation_loss,
    "evaluation_accuracy": lambda row: row.evaluation_accuracy,
    "consensus_distance": lambda row: row.consensus_distance,
    "sent_bytes": lambda row: row.sent_bytes,
    "received_bytes": lambda row: row.received_bytes,
}


@dataclass
class Group:
    """What is known of a value in some neighbouring rounds: how many there are, their sum, and the extremes."""

    count: int
    total: float
    low: float
    high: float

    def add(self, other: Group) -> None:
        """Take in another group."""
        self.count += other.count
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return self.total / self.count


@dataclass
class Thinned:
    """Rounds in groups of ``each``, a power of two that grows as the history does."""

    each: int = 1
    count: int = 0
    first: RoundReport | None = None
    last: RoundReport | None = None
    groups: dict[str, dict[int, Group]] = field(default_factory=lambda: {name: {} for name in VALUES})

    def add(self, row: RoundReport) -> None:
        """Take in a round; they may come in any order."""
        self.count += 1
        self.first = row if self.first is None or row.round < self.first.round else self.first
        self.last = row if self.last is None or row.round > self.last.round else self.last
        number = row.round // self.each
        for name, of in VALUES.items():
            value = of(row)
            if value is not None and math.isfinite(value):
                _put(self.groups[name], number, Group(1, value, value, value))
        while max(map(len, self.groups.values())) > MOST:
            self._widen()

    def curve(self, name: str) -> list[tuple[float, Group]]:
        """Return the middles of the groups, in rounds, and what is known there, from the first to the last."""
        middle = (self.each - 1) / 2
        return [(number * self.each + middle, group) for number, group in sorted(self.groups[name].items())]

    def _widen(self) -> None:
        self.each *= 2
        for name, narrow in self.groups.items():
            wide: dict[int, Group] = {}
            for number, group in narrow.items():
                _put(wide, number // 2, group)
            self.groups[name] = wide


def _put(groups: dict[int, Group], number: int, group: Group) -> None:
    if (known := groups.get(number)) is None:
        groups[number] = group
    else:
        known.add(group)
