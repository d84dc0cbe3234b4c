"""Batches drawn by chance."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from decaf_node.training.examples import Example
from decaf_node.training.private.sampling import PoissonBatches


class Examples:
    """Some numbered examples, and how often they were looked at again."""

    def __init__(self, count: int) -> None:
        self.examples = [Example(np.array([number], dtype=np.int32), 0, 0, number, 0.5) for number in range(count)]
        self.refreshed = 0

    def refresh(self) -> None:
        self.refreshed += 1


def batches(files: Examples, rate: float, count: int, seed: int | None = 0) -> list[list[int]]:
    generator = None if seed is None else np.random.default_rng(seed)
    drawn = PoissonBatches(files, rate, generator)  # type: ignore[arg-type]
    return [[example.key for example in batch] for batch in islice(drawn, count)]


def test_each_example_is_drawn_by_itself_with_the_same_probability() -> None:
    drawn = batches(Examples(20), 0.3, 4000)
    held = np.zeros((4000, 20))
    for row, batch in enumerate(drawn):
        assert len(set(batch)) == len(batch)
        held[row, batch] = 1
    assert held.mean(0) == pytest.approx(0.3, abs=0.04)
    together = np.corrcoef(held.T) - np.eye(20)
    assert np.abs(together).max() < 0.08  # no two are drawn together, or instead of each other
    sizes = held.sum(1)
    assert sizes.var() == pytest.approx(20 * 0.3 * 0.7, rel=0.15)  # and a batch is of any size


def test_a_batch_may_be_empty() -> None:
    assert [] in batches(Examples(4), 0.1, 200)


def test_the_files_are_looked_at_once_an_epoch() -> None:
    files = Examples(10)
    batches(files, 0.25, 9)
    assert files.refreshed == 2


def test_new_examples_are_drawn_with_the_same_probability() -> None:
    files = Examples(10)
    drawn = PoissonBatches(files, 0.5, np.random.default_rng(0))  # type: ignore[arg-type]
    stream = iter(drawn)
    for _ in range(3):
        next(stream)
    files.examples = Examples(1000).examples
    assert np.mean([len(next(stream)) for _ in range(50)]) == pytest.approx(500, rel=0.05)


def test_no_seed_of_the_settings_or_of_torch_decides_what_is_drawn() -> None:
    np.random.seed(0)
    one = batches(Examples(100), 0.5, 3, seed=None)
    np.random.seed(0)
    assert batches(Examples(100), 0.5, 3, seed=None) != one
