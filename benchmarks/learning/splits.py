"""Who holds which examples: the same mixture of labels everywhere, mixtures drawn at random, or labels of one's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Mixtures = NDArray[np.float64]
"""(nodes, labels): the parts of each label in what a node is to hold; rows sum to 1."""


def even(prior: Sequence[float], nodes: int) -> Mixtures:
    """Return the same mixture for every node (IID). prior: the part of each label in all data."""
    return np.tile(_sum_to_one(np.asarray(prior, dtype=np.float64)), (nodes, 1))


def dirichlet(prior: Sequence[float], nodes: int, alpha: float, random: np.random.Generator) -> Mixtures:
    """Return a mixture a node, drawn from Dirichlet(alpha * labels * prior): the smaller alpha, the more skewed.

    Source: Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification", arXiv 1909.06335, with alpha as in later papers: alpha for every label where all are alike.
    """
    parts = _sum_to_one(np.asarray(prior, dtype=np.float64))
    return random.dirichlet(alpha * len(parts) * parts, size=nodes)


def exclusive(labels: int, nodes: int, each: int) -> Mixtures:
    """Return mixtures of ``each`` labels a node, neighbouring windows that cover all labels where they can."""
    mixtures = np.zeros((nodes, labels))
    for node in range(nodes):
        start = node * labels // nodes
        mixtures[node, [(start + i) % labels for i in range(each)]] = 1.0 / each
    return mixtures


def by_domain(labels: Sequence[str], nodes: int) -> Mixtures:
    """Return mixtures of the labels of one domain a node, which is the first word of ``domain.topic``.

    Domains of one label are one together. Raises ValueError where that makes a single domain.
    """
    first = Counter(label.split(".")[0] for label in labels)
    domains = [label.split(".")[0] if first[label.split(".")[0]] > 1 else "" for label in labels]
    named = sorted({*domains})
    if len(named) < 2:
        raise ValueError(f"Labels like {labels[0]} are not of several domains.")
    held = [[float(domain == named[node % len(named)]) for domain in domains] for node in range(nodes)]
    return np.array([_sum_to_one(np.asarray(row)) for row in held])


def deal(
    labels: Sequence[int], sizes: Sequence[int], mixtures: Mixtures, random: np.random.Generator
) -> list[list[int]]:
    """Deal examples, given by their labels, to nodes: which node holds the examples of which numbers, in drawn order.

    sizes: how many each node is to hold; a label that has run out is made up for by the node's other labels, and where
    those have run out too, by whatever is left. Raises ValueError if there are too few examples.
    """
    if sum(sizes) > len(labels):
        raise ValueError(f"{sum(sizes)} examples cannot be dealt from {len(labels)}.")
    piles = [
        list(random.permutation(np.flatnonzero(np.asarray(labels) == label))) for label in range(mixtures.shape[1])
    ]
    held: list[list[int]] = [[] for _ in sizes]
    for turn in range(max(sizes)):
        for node, size in enumerate(sizes):
            if turn < size:
                held[node].append(int(piles[_drawn(mixtures[node], piles, random)].pop()))
    return held


def _drawn(mixture: NDArray[np.float64], piles: Sequence[Sequence[int]], random: np.random.Generator) -> int:
    left = np.array([len(pile) for pile in piles])
    wanted = mixture * (left > 0)
    return int(random.choice(len(piles), p=_sum_to_one(wanted if wanted.sum() > 0 else left.astype(np.float64))))


def _sum_to_one(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    parts /= parts.sum()
    return parts
