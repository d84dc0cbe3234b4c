"""The user's optimizer with Opacus' clipping and noise before each step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from opacus.optimizers import DPOptimizer

from decaf_node.training.private.account import Account


class PrivateOptimizer(DPOptimizer):  # type: ignore[misc]
    """Clips each example's gradient, adds noise, counts the step, and takes it; a step beyond the budget does nothing.

    batch: the expected size of a batch, by which the sum of gradients is divided, whatever the size of this one.

    The noise is drawn from numpy's generator, seeded with 128 bits of the operating system's entropy: torch's own for
    the CPU has 32 bits of seed, few enough to try all, and its state is saved and restored with a round.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, account: Account, max_grad_norm: float, batch: int) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=account.terms.noise,
            max_grad_norm=max_grad_norm,
            expected_batch_size=batch,
            loss_reduction="mean",
        )
        self._account = account
        self._noise = np.random.default_rng()

    def add_noise(self) -> None:
        """See ``DPOptimizer``."""
        deviation = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            drawn = torch.from_numpy(self._noise.standard_normal(tuple(parameter.shape), dtype=np.float32))
            noise = drawn.to(parameter.device, parameter.dtype) * deviation
            parameter.grad = (parameter.summed_grad + noise).view_as(parameter)

    def step(self, closure: Any = None) -> Any:
        """Take the step if the budget has one left."""
        return super().step(closure) if self._account.take() else None
