"""Texts: told apart by MiniLM, or asked about in words, which SmolLM2 answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

from benchmarks.learning.task import Sections, Task, task_of
from benchmarks.one_model import load_shared
from decaf_node.cli.demo.articles import Article, read_topics, without_duplicates
from decaf_node.cli.demo.assets import asset
from decaf_node.cli.demo.language import converted
from decaf_node.cli.demo.recipe import Recipe, classifier, language_model

HEADER_LINES = 3
ANSWERS = 100  # that are looked at: for each the whole model runs
LAYERS = list(range(20, 30))  # of SmolLM2's thirty, that are adapted: a third of the work, and of the bytes


def tab_separated(assets: Path, name: str) -> Task:
    """Return ``20newsgroups`` or ``reuters-r8``. Raises BadData if it is not fetched."""
    folder, drawn = asset(assets, "texts"), Random(0)
    rest = without_duplicates(_read(folder / f"{name}-train.tab"))
    test = without_duplicates([*rest, *_read(folder / f"{name}-test.tab")])[len(rest) :]
    drawn.shuffle(rest)
    drawn.shuffle(test)
    return task_of(rest, test, _minilm(assets), load_shared)


def bbc(assets: Path) -> Task:
    """Return the topics of news. Raises BadData if they are not fetched."""
    rest, test = _news(assets)
    return task_of(rest, test, _minilm(assets), load_shared)


def bbc_answers(assets: Path) -> Task:
    """Return the same as a question, as in ``decaf-node demo --llm``. Raises BadData if it is not fetched."""
    recipe = language_model(converted(assets, assets / "smollm2/convert.log"), iid=False)
    model = recipe.model | {"cache_lower_layers": True}
    last = replace(recipe, model=model, lora=recipe.lora | {"layers_to_transform": LAYERS})
    task = task_of(*_news(assets), _sections(last), load_shared)
    return replace(task, validation=task.validation[:ANSWERS], test=task.test[:ANSWERS], on_the_way=0)


def _minilm(assets: Path) -> Sections:
    return _sections(classifier(asset(assets, "minilm"), iid=False))


def _sections(recipe: Recipe) -> Sections:
    return {"model": recipe.model, "lora": recipe.lora, "data": recipe.data, "arguments": recipe.arguments}


def _news(assets: Path) -> tuple[list[Article], list[Article]]:
    """Return what is not for the test, and what is."""
    articles = without_duplicates(read_topics(asset(assets, "bbcnews") / "data"))
    Random(0).shuffle(articles)
    tested = len(articles) // 5
    return articles[tested:], articles[:tested]


def _read(path: Path) -> list[Article]:
    """Read Orange's tab-separated format: three lines of header, then label and text."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[HEADER_LINES:]
    rows = (line.split("\t", 1) for line in lines if "\t" in line)
    return [Article(text, label) for label, text in rows if text.strip()]
