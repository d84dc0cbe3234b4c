"""The loss of each example by itself: no example's gradient may depend on who else is in the batch.

transformers' own loss of a language model is the mean over all tokens of a batch, so a long example makes the
gradients of the others smaller. Clipping would not bound what it changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from decaf_node.errors import BadSettings
from decaf_node.training.examples import IGNORED


def example_losses(model: Any, batch: dict[str, Tensor], causal: bool) -> Tensor:
    """Return the loss of each example (n,): of its class, or the mean over its own tokens."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    labels = batch["labels"]
    logits = model(**inputs).logits.float()
    if not causal:
        return functional.cross_entropy(logits, labels, reduction="none")
    labels = labels[:, 1:]
    losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return losses.sum(1) / (labels != IGNORED).sum(1).clamp_min(1)


def check_gradients(parameters: Iterable[nn.Parameter], names: Iterable[str], count: int) -> None:
    """See to it that each parameter has ``count`` gradients, one an example; zeros where it had no part in the loss.

    Raises BadSettings if a layer has seen something else than examples in a row, as experts see tokens.
    """
    for name, parameter in zip(names, parameters, strict=True):
        gradients = getattr(parameter, "grad_sample", None)
        if gradients is None:
            parameter.grad_sample = torch.zeros((count, *parameter.shape), device=parameter.device)  # type: ignore[attr-defined]
        elif not isinstance(gradients, Tensor) or gradients.shape != (count, *parameter.shape):
            raise BadSettings(
                "privacy.not-by-example",
                f"[lora] adapts {name}, which does not see one example after the other, so privacy.epsilon cannot be "
                "kept there; take it out of lora.target_modules.",
            )
