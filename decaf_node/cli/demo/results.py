"""The demo's numbers: what each node reached alone and in the mesh, and what one place reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from decaf_node.cli.demo.articles import Article
from decaf_node.cli.demo.baselines import Baselines
from decaf_node.cli.demo.mesh import Node
from decaf_node.cli.demo.shares import Deal, holdings
from decaf_node.cli.demo.sight import Point


@dataclass(frozen=True)
class NodeResult:
    """One node. mesh: None where it left before it was measured. left: it was gone at the end.

    bound: the best accuracy of one that answers with nothing but the labels it holds.
    """

    name: str
    holds: dict[str, int]
    alone: float | None
    mesh: float | None
    bound: float
    round: int
    left: bool
    sent_bytes: int


@dataclass(frozen=True)
class Results:
    """centralized: one trainer with all the articles and as many steps as the nodes take together."""

    nodes: tuple[NodeResult, ...]
    centralized: float | None
    labels: tuple[str, ...]
    test_examples: int
    rounds: int
    own_rate: bool  # one place has a learning rate of its own

    @property
    def stayed(self) -> list[NodeResult]:
        """The nodes that were there to the end: the means are over these."""
        return [node for node in self.nodes if not node.left]

    @property
    def alone(self) -> float | None:
        return _mean([node.alone for node in self.stayed])

    @property
    def mesh(self) -> float | None:
        return _mean([node.mesh for node in self.stayed])

    @property
    def alone_bound(self) -> float:
        """The best mean accuracy that the nodes can have alone."""
        return sum(node.bound for node in self.stayed) / len(self.stayed)

    @property
    def standard_error(self) -> float:
        """Of one accuracy of nine tenths on this test set."""
        return float((0.9 * 0.1 / self.test_examples) ** 0.5)

    @property
    def sent_bytes(self) -> int:
        return sum(node.sent_bytes for node in self.nodes)

    def document(self) -> dict[str, Any]:
        """Return what ``--json`` prints of it."""
        nodes = [
            {
                "name": node.name,
                "articles": node.holds,
                "alone": node.alone,
                "mesh": node.mesh,
                "round": node.round,
                "gone": node.left,
                "bytes": node.sent_bytes,
            }
            for node in self.nodes
        ]
        return {
            "alone": self.alone,
            "mesh": self.mesh,
            "centralized": self.centralized,
            "nodes": nodes,
            "rounds": self.rounds,
            "test_examples": self.test_examples,
            "bytes": self.sent_bytes,
        }


def gather(nodes: Sequence[Node], baselines: Baselines, rounds: int, dealt: Deal, own_rate: bool) -> Results:
    """Put the results together from the nodes that were watched and from the baselines."""
    return Results(
        nodes=tuple(
            NodeResult(
                name=node.newsroom.name,
                holds=holdings(node.newsroom.share),
                alone=last_accuracy(baselines.alone[node.newsroom.name]),
                mesh=node.record.accuracy,
                bound=share_of_labels(dealt.test, set(holdings(node.newsroom.share))),
                round=node.record.round,
                left=not node.done,
                sent_bytes=node.record.sent_bytes,
            )
            for node in nodes
        ),
        centralized=last_accuracy(baselines.one_place),
        labels=dealt.labels,
        test_examples=len(dealt.test),
        rounds=rounds,
        own_rate=own_rate,
    )


def share_of_labels(articles: Sequence[Article], labels: set[str]) -> float:
    return sum(article.label in labels for article in articles) / len(articles)


def last_accuracy(curve: Sequence[Point]) -> float | None:
    return next((point.accuracy for point in reversed(curve) if point.accuracy is not None), None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
