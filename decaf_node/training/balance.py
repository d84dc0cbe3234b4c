"""A loss that weighs labels as if a node had as many examples of each, though its own are skewed.

Logit adjustment (Menon et al., arXiv 2007.07314; between nodes, FedLC, arXiv 2209.00189): while training, each logit is
raised by the logarithm of how frequent its label is in the node's own examples. So the model need not learn that, and
labels that are not here are not unlearned: they take no part.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from decaf_node.training.examples import Example

ABSENT = -1000.0  # so low that such a logit has no gradient at all: of the smallest one Adam would make a full step


class BalancedLoss:
    """For ``Trainer(compute_loss_func=...)``. examples: returns the node's own, another list once they have changed."""

    def __init__(self, examples: Callable[[], Sequence[Example]]) -> None:
        self._examples = examples
        self._counted: Sequence[Example] | None = None
        self._prior = torch.zeros(0)

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Return the mean over the batch, or its part of the mean over so many examples."""
        logits = outputs.logits.float()
        own = self._examples()
        if self._counted is not own:
            self._counted = own
            self._prior = log_frequencies([example.label for example in own], logits.shape[-1]).to(logits.device)
        total = functional.cross_entropy(logits + self._prior, labels, reduction="sum")
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def log_frequencies(labels: Sequence[int], count: int) -> Tensor:
    """Return the logarithm of each label's part of all (count,), ABSENT for those that are not there.

    Of a single label nothing is left to learn by that; then it is zeros, the loss as it is.
    """
    held = Counter(labels)
    if len(held) < 2:
        return torch.zeros(count)
    parts = [math.log(held[label] / len(labels)) if label in held else ABSENT for label in range(count)]
    return torch.tensor(parts, dtype=torch.float32)
