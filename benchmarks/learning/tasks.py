"""Every task by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

from benchmarks.learning.images import fashion_mnist
from benchmarks.learning.task import VALIDATION, Task, holding
from benchmarks.learning.texts import bbc, bbc_answers, tab_separated

TASKS: Mapping[str, Callable[[Path], Task]] = {
    "20newsgroups": partial(tab_separated, name="20newsgroups"),
    "reuters-r8": partial(tab_separated, name="reuters-r8"),
    "bbc": bbc,
    "bbc-answers": bbc_answers,
    "fashion-mnist": fashion_mnist,
}
ANSWERED = frozenset({"bbc-answers"})  # in words, by a language model: there is no head


@cache
def load_task(name: str, assets: Path, validation: int = VALIDATION) -> Task:
    """Return the task, the same at each call; nothing is there twice. Raises BadData if it is not fetched."""
    task = TASKS[name](assets)
    return task if name in ANSWERED else holding(task, validation)
