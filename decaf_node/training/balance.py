"""A loss that weighs labels as if a node had as many examples of each, though its own are skewed.

Logit adjustment (Menon et al., arXiv 2007.07314; between nodes, FedLC, arXiv 2209.00189): while training, each logit is
raised by the logarithm of how frequent its label is in the node's own examples, so the model need not learn that.
Labels that are not here count as rare ones: were they left out, two that no node has together would never be told
apart. But their rows of the classifier's head are left to nodes that have them: Adam makes a full step of any gradient,
however small, and would unlearn what these nodes know as fast as ever. (Weight decay is none.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from decaf_node.training.examples import Example
from decaf_node.training.live import LiveAdapter

RARE = 0.2  # how frequent a label that is not here counts, beside an average one that is; from docs/learning.md


class BalancedLoss:
    """For ``Trainer(compute_loss_func=...)``.

    examples: returns the node's own, another list once they have changed. smoothing: of the labels, as in
    ``label_smoothing_factor``. raised: by how much, given how many examples each label has here
    """

    def __init__(
        self,
        examples: Callable[[], Sequence[Example]],
        smoothing: float = 0.0,
        raised: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._examples = examples
        self._smoothing = smoothing
        self._raised_by = raised or log_frequencies
        self._counted: Sequence[Example] | None = None
        self._raised = torch.zeros(0)
        self._is_here = torch.zeros(0)  # 1.0 for a label that is, else 0.0

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Return the mean over the batch, or its part of the mean over so many examples."""
        logits = outputs.logits.float()
        self._count(logits)
        weighed = logits + self._raised
        total = functional.cross_entropy(weighed, labels, reduction="sum", label_smoothing=self._smoothing)
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    def leave_absent_rows(self, live: LiveAdapter, count: int) -> None:
        """Keep gradients from the head's rows, one for each of ``count`` labels, where the label is not here."""
        for tensor in live.tensors.values():
            if tensor.shape[:1] == (count,):
                tensor.register_hook(self._of_own_rows)  # type: ignore[no-untyped-call]

    def _of_own_rows(self, gradient: Tensor) -> Tensor:
        return gradient * self._is_here.reshape(-1, *[1] * (gradient.dim() - 1)).to(gradient.dtype)

    def _count(self, logits: Tensor) -> None:
        own = self._examples()
        if self._counted is not own:
            self._counted = own
            counts = torch.bincount(torch.tensor([example.label for example in own]), minlength=logits.shape[-1])
            self._raised = self._raised_by(counts).to(logits.device)
            self._is_here = counts.sign().float().to(logits.device)


def log_frequencies(counts: Tensor, rare: float = RARE) -> Tensor:
    """Return the logarithm of how often each label is there (labels,), float32.

    One that is not there counts ``rare`` times as often as those that are do on average.
    """
    absent = rare * counts[counts > 0].float().mean()
    return torch.where(counts > 0, counts.float(), absent).log()
