"""What a round costs a node: bytes, and seconds, from the adapter's size, the graph, and two speeds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from decaf_node.mesh.topology import graph, in_use
from decaf_node.snapshot import COMPACT_BYTES

HOUR, MONTH = 3600.0, 30 * 86400.0


@dataclass(frozen=True)
class Size:
    """A snapshot. bytes: by wire format, at ``rank``; factors: numbers in A and B of that rank; plain: all others."""

    bytes: Mapping[str, int]
    factors: int
    plain: int
    rank: int

    def of(self, wire: str, rank: int) -> int:
        """Return the bytes of a snapshot of another rank: exact but for some digits, scales of int8, and compact."""
        width = {"float32": 4, "int8": 1, "compact": COMPACT_BYTES}.get(wire, 2)
        return self.bytes[wire] - int(width * (self.factors - self.factors * rank // self.rank))


@dataclass(frozen=True)
class Facts:
    """What a plan is made from; None: not known.

    link: bytes a second, each way. mix: seconds. overlap: training goes on while edges are exchanged.
    wires: formats that the algorithm goes with, the finest first.
    """

    size: Size
    nodes: int
    link: float | None = None
    step_seconds: float | None = None
    mix_seconds: float | None = None
    overlap: bool = True
    wires: Sequence[str] = ("float32", "int8", "compact")


@dataclass(frozen=True)
class Choice:
    """What can be set. steps: local ones a round, 0: ``seconds`` of them."""

    topology: str
    wire: str
    rank: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """One round of one node. sent_bytes: as many are received; seconds None: a speed is not known.

    seconds: of the whole round as it is set, with_overlap and without it; hour_bytes, month_bytes: sent and received.
    """

    graph: str
    neighbours: float
    snapshot_bytes: int
    sent_bytes: int
    train_seconds: float | None
    exchange_seconds: float | None
    mix_seconds: float | None
    with_overlap_seconds: float | None
    without_overlap_seconds: float | None
    seconds: float | None
    hour_bytes: float | None
    month_bytes: float | None


def forecast(facts: Facts, choice: Choice) -> Forecast:
    """Return what a round costs. An unknown mix counts as nothing."""
    snapshot = facts.size.of(choice.wire, choice.rank)
    neighbours = degree(choice.topology, facts.nodes)
    sent = round(neighbours * snapshot)
    train = _train(facts, choice)
    exchange = None if facts.link is None else sent / facts.link
    overlapped = apart = None
    if train is not None and exchange is not None:
        mix = facts.mix_seconds or 0.0
        overlapped, apart = max(train, exchange) + mix, train + exchange + mix
    whole = overlapped if facts.overlap else apart
    return Forecast(
        graph=in_use(choice.topology, facts.nodes),
        neighbours=neighbours,
        snapshot_bytes=snapshot,
        sent_bytes=sent,
        train_seconds=train,
        exchange_seconds=exchange,
        mix_seconds=facts.mix_seconds,
        with_overlap_seconds=overlapped,
        without_overlap_seconds=apart,
        seconds=whole,
        hour_bytes=None if not whole else 2 * sent * HOUR / whole,
        month_bytes=None if not whole else 2 * sent * MONTH / whole,
    )


@lru_cache(maxsize=64)
def degree(topology: str, nodes: int) -> float:
    """Return how many neighbours a node has in a turn, on average over nodes and turns."""
    members = tuple(f"{number:06}" for number in range(nodes))
    drawn = graph(topology, members)
    counts = [len(drawn.neighbours(member, turn)) for turn in range(drawn.turns) for member in members]
    return sum(counts) / len(counts)


def _train(facts: Facts, choice: Choice) -> float | None:
    if not choice.steps:
        return choice.seconds
    return None if facts.step_seconds is None else choice.steps * facts.step_seconds
