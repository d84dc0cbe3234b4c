"""A language model that learns answers needs no logits for the tokens of the questions: a large part of its work."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from decaf_node.training.examples import IGNORED


def keeps_logits(model: Any) -> bool:
    """Can the model, PEFT's wrapper around it aside, leave out the logits of tokens that are not wanted?"""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def skip_prompt_logits(model: Any) -> None:
    """Let ``model``, where it can, compute no logits before the first label of a batch. The loss stays the same."""
    if keeps_logits(model):
        model.register_forward_pre_hook(_skip, with_kwargs=True)


def _skip(model: Any, args: tuple[Any, ...], batch: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    labels = batch.get("labels")
    if labels is None:
        return args, batch
    learned = (labels != IGNORED).any(0).nonzero()
    start = int(learned[0]) - 1 if len(learned) else 0  # the token before a label predicts it
    if start < 1:
        return args, batch
    # Places, not a number of tokens: so the hidden states are copied, and torch's linear does not copy the output
    # layer's weights once an example instead.
    places = torch.arange(start, labels.shape[1], device=labels.device)
    return args, batch | {"labels": labels[:, start:], "logits_to_keep": places}
