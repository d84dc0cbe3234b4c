"""The rows of the history: each put together from what the trainer and the edges say of a round, in any order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from decaf_node import link
from decaf_node.daemon.reports import EdgeReport, RoundReport
from decaf_node.daemon.traffic import Bytes
from decaf_node.mesh.events import Edge

OPEN_ROUNDS = 8  # a round is evaluated and saved by the time that so many have followed
MEASURED_EDGES = 4096


class History:
    """Rows that may still change, and the last that was mixed. clock: monotonic seconds; wall: seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self.last: RoundReport | None = None
        self._clock = clock
        self._wall = wall
        self._open: dict[int, RoundReport] = {}
        self._trained: tuple[int, float] | None = None
        self._distances: dict[tuple[str, str], float] = {}
        self._factors: dict[tuple[str, str], float] = {}

    def trained(self, message: link.RoundTrained) -> None:
        """The local steps of a round are done."""
        self._trained = message.round, self._clock()
        row = self._row(message.round)
        self._keep(replace(row, steps=message.steps, loss=message.loss, train_seconds=message.seconds))

    def inspected(self, peer: str, digest: str, distance: float) -> None:
        """The trainer has measured how far a neighbour's snapshot is."""
        _remember(self._distances, peer, digest, distance)

    def clipped(self, peer: str, digest: str, factor: float) -> None:
        """So much of the weight of the edge with this snapshot is left."""
        _remember(self._factors, peer, digest, factor)

    def mixing(self, round: int, edges: Iterable[Edge], passed: Bytes) -> None:
        """These edges go into the mix of the round; ``passed`` over the network since the round before."""
        reports = tuple(map(self._edge, edges))
        measured = [edge.distance for edge in reports if math.isfinite(edge.distance)]
        now = self._clock()
        number, since = self._trained or (round, now)
        row = self._open.pop(number, None) or _blank(round)
        self._trained = None
        self._keep(
            replace(
                row,
                round=round,  # which an adoption may have moved on since it was trained
                edges=reports,
                exchange_seconds=now - since,
                consensus_distance=math.sqrt(sum(d * d for d in measured) / len(measured)) if measured else None,
                sent_bytes=passed.sent,
                received_bytes=passed.received,
            )
        )

    def mixed(self, message: link.RoundMixed) -> RoundReport:
        """The mix is loaded: the row is whole, but for an evaluation that may follow."""
        self.last = self._keep(
            replace(
                self._row(message.round),
                time=self._wall(),
                mix_seconds=message.seconds,
                tail=message.tail,
                interference=message.interference,
                norm=message.norm,
            )
        )
        return self.last

    def evaluated(self, message: link.Evaluated) -> RoundReport | None:
        """The held-out part was looked at; return the row if it was recorded already."""
        row = self._keep(
            replace(self._row(message.round), evaluation_loss=message.loss, evaluation_accuracy=message.accuracy)
        )
        if row.time == 0.0:
            return None
        if self.last is not None and self.last.round == row.round:
            self.last = row
        return row

    def evaluated_now(self, message: link.EvaluatedNow) -> RoundReport | None:
        """Somebody has asked for an evaluation: it counts for the round mixed last, where that has none of its own."""
        last = self.last
        if not message.examples or last is None or last.round != message.round or last.evaluation_loss is not None:
            return None
        found = link.Evaluated(message.round, message.loss, message.accuracy, message.examples, message.seconds)
        return self.evaluated(found)

    def saved(self, round: int) -> None:
        """All rounds up to this one are durable."""
        self._open = {
            number: replace(row, saved=True) if number <= round else row for number, row in self._open.items()
        }
        if self.last is not None and self.last.round <= round:
            self.last = replace(self.last, saved=True)

    def _edge(self, edge: Edge) -> EdgeReport:
        """Return an edge that is mixed. Of one from before a restart its weight is all that is known."""
        key = edge.peer, edge.theirs
        distance, factor = self._distances.pop(key, math.nan), self._factors.pop(key, None)
        return EdgeReport(edge.peer, edge.weight, distance, factor)

    def _row(self, round: int) -> RoundReport:
        return self._open.get(round) or _blank(round)

    def _keep(self, row: RoundReport) -> RoundReport:
        self._open[row.round] = row
        for old in sorted(self._open)[:-OPEN_ROUNDS]:
            del self._open[old]
        return row


def _remember(figures: dict[tuple[str, str], float], peer: str, digest: str, figure: float) -> None:
    if len(figures) >= MEASURED_EDGES:
        figures.clear()
    figures[peer, digest] = figure


def _blank(round: int) -> RoundReport:
    return RoundReport(
        round=round,
        time=0.0,
        steps=0,
        loss=0.0,
        train_seconds=0.0,
        exchange_seconds=0.0,
        mix_seconds=0.0,
        edges=(),
        tail=0.0,
        interference=0.0,
        norm=0.0,
        consensus_distance=None,
        sent_bytes=0,
        received_bytes=0,
        evaluation_loss=None,
        evaluation_accuracy=None,
        saved=False,
    )
