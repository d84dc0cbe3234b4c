"""Texts to tell apart: for training, for choosing by, and for the one look at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from decaf_node.cli.demo.articles import Article, read_topics, without_duplicates
from decaf_node.cli.demo.assets import asset

HEADER_LINES = 3
VALIDATION, TEST = 400, 2000  # texts at most; one standard error of an accuracy of a half is 2.5 and 1.1 points


@dataclass(frozen=True)
class Task:
    """validation: what every choice is made by. test: looked at once, when all is chosen."""

    labels: tuple[str, ...]
    train: list[Article]
    validation: list[Article]
    test: list[Article]


def load_task(name: str, assets: Path) -> Task:
    """Return ``20newsgroups``, ``reuters-r8`` or ``bbc``, the same at each call; none of its texts is there twice.

    Raises BadData if it is not fetched.
    """
    drawn = Random(0)
    if name == "bbc":
        articles = without_duplicates(read_topics(asset(assets, "bbcnews") / "data"))
        drawn.shuffle(articles)
        test, rest = articles[: len(articles) // 5], articles[len(articles) // 5 :]
    else:
        folder = asset(assets, "texts")
        rest = without_duplicates(_read(folder / f"{name}-train.tab"))
        test = without_duplicates([*rest, *_read(folder / f"{name}-test.tab")])[len(rest) :]
        drawn.shuffle(rest)
        drawn.shuffle(test)
    held = min(VALIDATION, len(rest) // 5)
    labels = tuple(sorted({article.label for article in rest}))
    return Task(labels, rest[held:], rest[:held], test[:TEST])


def _read(path: Path) -> list[Article]:
    """Read Orange's tab-separated format: three lines of header, then label and text."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[HEADER_LINES:]
    rows = (line.split("\t", 1) for line in lines if "\t" in line)
    return [Article(text, label) for label, text in rows if text.strip()]
