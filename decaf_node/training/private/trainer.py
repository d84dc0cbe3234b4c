"""transformers' Trainer with private steps: batches by chance, a gradient for each example, clipping and noise.

Opacus hooks into the layers of the model itself and wraps nothing, so what trains is what is read out, mixed and sent.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from opacus.grad_sample import GradSampleHooks
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from decaf_node.errors import BadData, BadSettings
from decaf_node.settings import Settings
from decaf_node.training.data import Stream
from decaf_node.training.examples import Example
from decaf_node.training.private.account import Account, Terms
from decaf_node.training.private.demands import planned_steps
from decaf_node.training.private.examples import check_gradients, example_losses
from decaf_node.training.private.optimizer import PrivateOptimizer
from decaf_node.training.private.sampling import PoissonBatches
from decaf_node.training.private.spending import noise_for

Collate = Callable[[list[Example]], dict[str, Tensor]]


def open_account(settings: Settings, path: Path, examples: int, batch: int) -> Account:
    """Return the account for this many examples in expected batches of this size, the settings being checked.

    Raises BadData if there are too few examples, BadSettings if the promise would be worth nothing, and what
    ``Account`` raises.
    """
    privacy, steps = settings.privacy, planned_steps(settings)
    assert privacy.epsilon is not None and privacy.delta is not None, "the settings see to it"  # noqa: PT018
    assert steps is not None, "the demands see to it"
    if examples < batch:
        raise BadData(
            "privacy.too-few-examples",
            f"There are {examples} examples to train on and a batch is of {batch}, so none can be drawn by chance; "
            "set per_device_train_batch_size lower, or bring more data.",
        )
    if privacy.delta * examples >= 1:
        raise BadSettings(
            "privacy.delta-too-large",
            f"privacy.delta is {privacy.delta:g}, but with {examples} examples it must be below {1 / examples:.1e}: "
            "with more, giving one whole example away would keep the promise.",
        )
    rate = batch / examples
    noise = noise_for(privacy.epsilon, privacy.delta, rate, steps)
    return Account(path, Terms(privacy.epsilon, privacy.delta, noise, rate))


def check_model(model: nn.Module) -> None:
    """Raise BadSettings if a layer mixes the examples of a batch."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise BadSettings(
                "privacy.batch-norm",
                f"The model has batch normalisation ({name}), which mixes the examples of a batch, so privacy.epsilon "
                "cannot be kept; choose another model.",
            )


class PrivateTrainer(Trainer):
    """A Trainer whose steps keep the promise of ``account``."""

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        stream: Stream,
        collate: Collate,
        account: Account,
        max_grad_norm: float,
        causal: bool,
        callbacks: list[TrainerCallback],
    ) -> None:
        args.max_grad_norm = 0.0  # of the sum: that of each example is clipped
        super().__init__(model=model, args=args, callbacks=callbacks)
        self._batches = PoissonBatches(stream, account.terms.rate)
        self._collate = collate
        self._account = account
        self._max_grad_norm = max_grad_norm
        self._causal = causal
        self._private: PrivateOptimizer | None = None
        # it fires for the first adapted layer, whose input no parameter has touched; Opacus needs only the output
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        check_model(model)
        try:
            self._hooks = GradSampleHooks(model, loss_reduction="sum")
        except NotImplementedError as error:
            raise BadSettings(
                "privacy.unsupported-layer",
                f"A layer that trains has buffers, which privacy.epsilon cannot cover; take it out of [lora]: {error}",
            ) from error
        self._hooks.forbid_grad_accumulation()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """See ``Trainer``."""
        if self._private is None:
            optimizer = super().create_optimizer(model)
            batch = self.args.per_device_train_batch_size
            self._private = PrivateOptimizer(optimizer, self._account, self._max_grad_norm, batch)
            self.optimizer = self._private
        return self._private

    def get_train_dataloader(self) -> DataLoader:  # type: ignore[type-arg]
        """See ``Trainer``."""
        return DataLoader(self._batches, batch_size=None, collate_fn=partial(_collate, self._collate))

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Leave one gradient for each example; return the mean loss, zero for a batch without any."""
        model.train()
        assert self._private is not None, "the optimizer is made before the first step"
        self._private.zero_grad(set_to_none=True)
        count = len(inputs["labels"])
        loss = torch.zeros((), device=self.args.device)
        if count and not self._account.is_spent:
            losses = example_losses(model, self._prepare_inputs(inputs), self._causal)
            self.accelerator.backward(losses.sum())
            loss = losses.detach().mean()
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        check_gradients(trained.values(), trained.keys(), 0 if self._account.is_spent else count)
        return loss


def _collate(collate: Collate, examples: list[Example]) -> dict[str, Tensor]:
    if examples:
        return collate(examples)
    return {"input_ids": torch.zeros((0, 1), dtype=torch.long), "labels": torch.zeros((0,), dtype=torch.long)}
