"""A small exact problem for simulated nodes: low-rank least squares, through the real kernel.

Node i holds inputs from a subspace of its own and what a common product ``W`` (d, k) of rank r makes of them. Alone it
can learn ``W`` on its own subspace only; the mesh together determines ``W``, where the loss over all data is 0: the
known optimum. Local steps are preconditioned gradient steps on the factors in float64. Source of the step: T. Tong,
C. Ma, Y. Chi, "Accelerating ill-conditioned low-rank matrix estimation via scaled gradient descent", 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from decaf_node.lowrank.adapter import Adapter, distance, medoid, norm
from decaf_node.lowrank.mixing import AdapterEdge, adopt, mix_adapters
from decaf_node.lowrank.product import Product
from decaf_node.sim.problem import Measure, Mixed, Term

LAYER = "layer"
STEPS = 4
RATE = 0.2
DAMPING = 1e-2
START = 0.1  # size of the first A


class LeastSquares:
    """d, k: size of the one layer; rank: of the truth and of each node; seen: inputs that a node has data for."""

    def __init__(self, nodes: int, seed: int, *, d: int = 12, k: int = 8, rank: int = 2, seen: int = 4) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.snapshot_bytes = 1000
        self._starts = [START * torch.randn(rank, k, generator=generator, dtype=torch.float64) for _ in range(nodes)]
        b = torch.randn(d, rank, generator=generator, dtype=torch.float64)
        a = torch.randn(rank, k, generator=generator, dtype=torch.float64)
        self.truth = b @ a / math.sqrt(rank)
        self._covariances = [_projector(k, seen, generator) for _ in range(nodes)]
        self.targets = [self.truth] * nodes  # what each node's data say

    def fresh(self, number: int) -> Adapter:
        """See ``Problem``. As every LoRA adapter, it starts with B = 0."""
        a = self._starts[number]
        return _adapter(torch.zeros(self.truth.shape[0], a.shape[0], dtype=a.dtype), a)

    def train(self, value: Adapter, number: int, random: Random) -> Adapter:
        """See ``Problem``."""
        product = value.products[LAYER]
        b, a = product.b, product.a
        covariance = self._covariances[number]
        eye = DAMPING * torch.eye(a.shape[0], dtype=a.dtype)
        for _ in range(STEPS):
            gradient = (b @ a - self.targets[number]) @ covariance
            step_b = gradient @ a.mT @ torch.linalg.inv(a @ a.mT + eye)
            step_a = torch.linalg.inv(b.mT @ b + eye) @ b.mT @ gradient
            b, a = b - RATE * step_b, a - RATE * step_a
        return _adapter(b, a)

    def mix(self, value: Adapter, terms: Sequence[Term]) -> Mixed:
        """See ``Problem``."""
        mixed = mix_adapters(value, [AdapterEdge(ours, theirs, weight) for weight, ours, theirs in terms])
        return Mixed(mixed.adapter, mixed.tail)

    def adopt(self, value: Adapter, candidates: Sequence[Adapter], base: Adapter | None) -> tuple[int, Adapter]:
        """See ``Problem``."""
        chosen = medoid(candidates)
        return chosen, adopt(candidates[chosen], value, base)

    def distance(self, one: Adapter, other: Adapter) -> float:
        """See ``Problem``."""
        return distance(one, other)

    def norm(self, value: Adapter) -> float:
        """See ``Problem``."""
        return norm(value)

    def harm(self, own: Adapter, theirs: Adapter, number: int) -> float:
        """See ``Problem``."""
        before, half = own.products[LAYER].dense(), self.mix(own, [(0.5, own, theirs)]).value.products[LAYER].dense()
        covariance, target = self._covariances[number], self.targets[number]
        loss, mixed, nothing = (float(self._loss(dense, covariance, target)) for dense in (before, half, 0 * before))
        return max(0.0, mixed - loss) / nothing

    def measure(self, values: Sequence[Adapter]) -> Measure:
        """See ``Problem``. loss: mean over all nodes' products, relative to the loss of doing nothing."""
        dense = torch.stack([value.products[LAYER].dense() for value in values])
        mean = dense.mean(0)
        covariance = torch.stack(self._covariances).mean(0)
        return Measure(
            consensus=float((dense - mean).square().sum((1, 2)).mean().sqrt()),
            loss=float(self._loss(dense, covariance, self.truth).mean() / self._loss(0 * mean, covariance, self.truth)),
            norm=float(mean.norm()),
        )

    def residual(self, before: Adapter, terms: Sequence[Term], after: Adapter) -> float:
        """See ``Problem``: against the dense sum."""
        exact = before.products[LAYER].dense()
        for weight, ours, theirs in terms:
            exact = exact + weight * (theirs.products[LAYER].dense() - ours.products[LAYER].dense())
        return float((exact - after.products[LAYER].dense()).norm())

    def _loss(self, dense: Tensor, covariance: Tensor, target: Tensor) -> Tensor:
        apart = dense - target
        return ((apart @ covariance) * apart).sum((-2, -1))


def _projector(k: int, seen: int, generator: torch.Generator) -> Tensor:
    """Return the projector (k, k) onto a random subspace of ``seen`` inputs."""
    basis, _ = torch.linalg.qr(torch.randn(k, seen, generator=generator, dtype=torch.float64))
    projector: Tensor = basis @ basis.mT
    return projector


def _adapter(b: Tensor, a: Tensor) -> Adapter:
    return Adapter({LAYER: Product(b, a)}, {})
