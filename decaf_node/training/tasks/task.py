"""A task: all that differs between the kinds of training that ``model.task`` names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from decaf_node.training.data import Source
from decaf_node.training.evaluate import Scorer
from decaf_node.training.examples import Example


@dataclass(frozen=True)
class Task:
    """One task with one node's settings.

    reads:   what the model's folder holds beside the weights, in words
    source:  turns what data.train and data.evaluation name into examples
    collate: turns examples into a batch; the model returns its loss for it
    scorer:  makes a scorer, a fresh one for each evaluation
    ranked:  whether there are labels to be right about
    prepare: does to the PEFT model what the task needs
    causal:  whether it is a language model, whose labels are its tokens
    """

    reads: str
    source: Source
    collate: Callable[[Sequence[Example]], dict[str, Any]]
    scorer: Callable[[], Scorer]
    ranked: bool
    prepare: Callable[[Any], None]
    causal: bool = False


def as_it_is(model: Any) -> None:
    """Nothing is to be done."""
