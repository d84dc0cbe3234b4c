"""What nodes of the learning bench train, beside what the product does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.learning.learner import with_absent


def test_labels_that_are_not_here_count_as_rare_ones() -> None:
    examples: list[Any] = [SimpleNamespace(label=label) for label in (0, 0, 0, 1)]
    loss = with_absent(examples, 0.2)(SimpleNamespace(logits=torch.zeros(2, 3)), torch.tensor([0, 1]))
    counted = torch.tensor([3.0, 1.0, 0.2 * 2.0])  # two of each label on average
    parts = counted / counted.sum()
    assert float(loss) == pytest.approx(-float(parts[0].log() + parts[1].log()) / 2)
