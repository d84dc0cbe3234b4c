"""Deal articles out: a common test set, and a private share for each node, skewed or equal."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from decaf_node.cli.demo.articles import Article
from decaf_node.errors import BadData


@dataclass(frozen=True)
class Deal:
    """No article is in two places."""

    labels: tuple[str, ...]
    test: tuple[Article, ...]
    shares: tuple[tuple[Article, ...], ...]


def deal(articles: Sequence[Article], nodes: int, share: int, test: int, iid: bool, seed: int) -> Deal:
    """Deal ``articles`` to a test set of at most ``test`` over all labels, and to ``nodes`` of at most ``share`` each.

    The test set takes at most a fifth of a label. Skewed: each node holds a window of the sorted labels, about two
    of five, and the windows cover all of them. IID: each holds all. The same seed deals the same.
    Raises BadData if there are fewer than two labels, or too little for every node.
    """
    rng = random.Random(seed)  # noqa: S311 - drawn from a seed
    labels = tuple(sorted({article.label for article in articles}))
    if len(labels) < 2:
        raise BadData("demo.one-label", f"Labels in the data: {len(labels)}; the demo needs two or more to tell apart.")
    piles = {label: [article for article in articles if article.label == label] for label in labels}
    for label in labels:
        rng.shuffle(piles[label])
    tested = [_draw(piles[label], min(math.ceil(test / len(labels)), len(piles[label]) // 5)) for label in labels]
    windows = [labels if iid else window(labels, node, nodes) for node in range(nodes)]
    shares = _deal_shares(piles, windows, share)
    if not all(shares) or not any(tested):
        raise BadData(
            "demo.too-little-data",
            f"{len(articles)} different texts with {len(labels)} labels are too few for {nodes} nodes and a test.",
        )
    for drawn in shares:
        rng.shuffle(drawn)
    return Deal(labels, tuple(article for drawn in tested for article in drawn), tuple(map(tuple, shares)))


def window(labels: Sequence[str], node: int, nodes: int) -> tuple[str, ...]:
    """Return the labels that ``node`` of ``nodes`` (at least two) holds: neighbouring windows, evenly spread.

    About two fifths of the labels each: of five topics 0-1, 1-2, 2-3, 3-4.
    """
    width = max(math.ceil(len(labels) * 2 / 5), math.ceil(len(labels) / nodes))
    start = round(node * (len(labels) - width) / (nodes - 1))
    return tuple(labels[start : start + width])


def holdings(share: Sequence[Article]) -> dict[str, int]:
    """Return how many articles of each label are in ``share``, in the order of the labels."""
    return dict(sorted(Counter(article.label for article in share).items()))


def _deal_shares(piles: dict[str, list[Article]], windows: Sequence[Sequence[str]], share: int) -> list[list[Article]]:
    holders = Counter(label for held in windows for label in held)
    fair = {label: len(pile) // max(holders[label], 1) for label, pile in piles.items()}
    return [
        [article for label in held for article in _draw(piles[label], min(fair[label], math.ceil(share / len(held))))]
        for held in windows
    ]


def _draw(pile: list[Article], count: int) -> list[Article]:
    """Take ``count`` articles off ``pile``."""
    drawn = pile[:count]
    del pile[:count]
    return drawn
