"""A task of the bench: what there is to learn, and the model that learns it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from benchmarks.one_model import Shared
from decaf_node.settings import Settings

VALIDATION, TEST = 400, 2000  # examples; one standard error of an accuracy of a half is 2.5 and 1.1 points
ON_THE_WAY = 100

Sections = Mapping[str, dict[str, Any]]


class Labelled(Protocol):
    """A text or an image."""

    @property
    def label(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Task:
    """validation: what every choice is made by. test: looked at once, when all is chosen.

    sections: of decaf-node's settings: of the model, its adapter, the data and the training; load: makes a model of
    them. on_the_way: how many examples each point of a curve is measured on; 0: there is no curve
    """

    labels: tuple[str, ...]
    train: Sequence[Labelled]
    validation: Sequence[Labelled]
    test: Sequence[Labelled]
    sections: Sections
    load: Callable[[Settings], Shared]
    on_the_way: int = ON_THE_WAY


def task_of(
    rest: Sequence[Labelled], test: Sequence[Labelled], sections: Sections, load: Callable[[Settings], Shared]
) -> Task:
    """Return the task, with the first of ``rest``, in drawn order, for validation and the others for training."""
    labels = tuple(sorted({one.label for one in rest}))
    return holding(Task(labels, rest, (), test[:TEST], sections, load), VALIDATION)


def holding(task: Task, validation: int) -> Task:
    """Return the task with so many examples for validation, at most a fifth of what is not for the test."""
    rest = [*task.validation, *task.train]
    held = min(validation, len(rest) // 5)
    return replace(task, train=rest[held:], validation=rest[:held])
