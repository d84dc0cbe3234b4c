"""What can be seen of a node over its control socket, and what it has shown so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from decaf_node.daemon.client import Client
from decaf_node.daemon.reports import PeerReport, RoundReport, StatusReport
from decaf_node.errors import DaemonUnreachable, TryAgain

HISTORY = 100


@dataclass(frozen=True)
class Point:
    """One round of a curve; what was not measured is None."""

    round: int
    accuracy: float | None
    loss: float | None = None
    distance: float | None = None


@dataclass(frozen=True)
class Sight:
    """One node at one moment. reach: it answers, does not answer in time, or nobody is there."""

    reach: Literal["here", "silent", "absent"]
    status: StatusReport | None = None
    peers: tuple[PeerReport, ...] = ()
    rounds: tuple[RoundReport, ...] = ()


def look(socket: Path) -> Sight:
    """Ask the node at ``socket`` once; takes at most a few seconds."""
    if not socket.exists():
        return Sight("absent")
    try:
        with Client(socket) as client:
            return Sight("here", client.status(), tuple(client.peers()), tuple(client.rounds(limit=HISTORY)))
    except DaemonUnreachable:
        return Sight("absent")
    except TryAgain:
        return Sight("silent")


@dataclass
class Record:
    """What a node has shown so far; it stays when the node goes."""

    status: StatusReport | None = None
    peers: tuple[PeerReport, ...] = ()
    points: dict[int, Point] = field(default_factory=dict)
    sent_before: int = 0  # by earlier lives of the daemon, each of which counts from nothing

    def add(self, sight: Sight) -> None:
        if sight.status is None:
            return
        if self.status is not None and self.status.instance != sight.status.instance:
            self.sent_before += self.status.sent_bytes
        self.status, self.peers = sight.status, sight.peers
        for row in sight.rounds:
            self.points[row.round] = Point(
                row.round, _known(row.evaluation_accuracy), _known(row.loss), _known(row.consensus_distance)
            )

    @property
    def round(self) -> int:
        """The last round that was mixed."""
        return max(self.points, default=0)

    @property
    def measured(self) -> int:
        """The last round whose accuracy is known."""
        return max((point.round for point in self.points.values() if point.accuracy is not None), default=0)

    @property
    def accuracy(self) -> float | None:
        """After the round ``measured``."""
        return self.points[self.measured].accuracy if self.measured else None

    def end_where_measured(self) -> None:
        """Forget the rounds after ``measured``: they were begun while another node was waited for."""
        self.points = {number: point for number, point in self.points.items() if number <= self.measured}

    @property
    def curve(self) -> list[Point]:
        return [self.points[number] for number in sorted(self.points)]

    @property
    def sent_bytes(self) -> int:
        return self.sent_before + (self.status.sent_bytes if self.status else 0)


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
