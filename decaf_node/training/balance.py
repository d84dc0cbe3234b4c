"""A loss that weighs labels as if a node's examples were the whole mesh's, though its own are skewed.

Logit adjustment (Menon et al., arXiv 2007.07314; between nodes, FedLC, arXiv 2209.00189): while training, each logit is
raised by the logarithm of how much more frequent its label is in the node's own examples than in all of the mesh, so
the model need not learn that. Before the node knows how frequent labels are in the mesh, all are alike there.
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
LEAST_PART = 1e-4  # of the mesh's examples, that a label is taken to have


class BalancedLoss:
    """For ``Trainer(compute_loss_func=...)``.

    examples: returns the node's own, another list once they have changed. labels: how many there are. smoothing: of the
    labels, as in ``label_smoothing_factor``. rare: how frequent a label that is not here counts
    """

    def __init__(
        self, examples: Callable[[], Sequence[Example]], labels: int, smoothing: float = 0.0, rare: float = RARE
    ) -> None:
        self._examples = examples
        self._labels = labels
        self._smoothing = smoothing
        self._rare = rare
        self._counted: Sequence[Example] | None = None
        self._counts = torch.zeros(0)
        self._mesh: tuple[float, ...] = ()
        self._raised = torch.zeros(0)
        self._is_here = torch.zeros(0)  # 1.0 for a label that is, else 0.0

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Return the mean over the batch, or its part of the mean over so many examples."""
        logits = outputs.logits.float()
        self._count()
        self._raised = self._raised.to(logits.device)
        total = functional.cross_entropy(
            logits + self._raised, labels, reduction="sum", label_smoothing=self._smoothing
        )
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    @property
    def own(self) -> tuple[float, ...]:
        """The part of the node's own examples that each label has."""
        self._count()
        return tuple((self._counts / self._counts.sum()).tolist())

    @property
    def mesh(self) -> tuple[float, ...]:
        """The part that each label has in the whole mesh, as far as it is known; empty while it is not."""
        return self._mesh

    def weigh(self, mesh: Sequence[float]) -> None:
        """Weigh labels from now on as in these parts of them in the whole mesh; of another number, as all alike."""
        fitting = tuple(mesh) if len(mesh) == self._labels else ()
        if fitting != self._mesh:
            self._mesh, self._counted = fitting, None

    def leave_absent_rows(self, live: LiveAdapter) -> None:
        """Keep gradients from the head's rows, one for each label, where the label is not here."""
        for tensor in live.tensors.values():
            if tensor.shape[:1] == (self._labels,):
                tensor.register_hook(self._of_own_rows)  # type: ignore[no-untyped-call]

    def _of_own_rows(self, gradient: Tensor) -> Tensor:
        self._is_here = self._is_here.to(gradient.device, gradient.dtype)
        return gradient * self._is_here.reshape(-1, *[1] * (gradient.dim() - 1))

    def _count(self) -> None:
        own = self._examples()
        if self._counted is not own:
            self._counted = own
            self._counts = torch.bincount(torch.tensor([example.label for example in own]), minlength=self._labels)
            mesh = torch.tensor(self._mesh) if self._mesh else torch.full((self._labels,), 1 / self._labels)
            self._raised = log_weights(self._counts, mesh, self._rare)
            self._is_here = self._counts.sign().float()


def log_weights(counts: Tensor, mesh: Tensor, rare: float = RARE) -> Tensor:
    """Return the logarithm of how much more frequent each label is here than in the mesh (labels,), float32.

    One that is not here counts ``rare`` times as often as those that are do on average, but is never more frequent
    here than in the mesh. counts: of each label here; mesh: the part of each label there
    """
    absent = rare * counts[counts > 0].float().mean()
    here = torch.where(counts > 0, counts.float(), absent).log()
    more = here - counts.sum().log() - mesh.clamp_min(LEAST_PART).log()
    return torch.where(counts > 0, more, more.clamp_max(0.0))
