"""The activations below the first adapted layer, kept per example: they never change, so a small device skips them.

Below that layer nothing trains. The layers there are replaced by a hand-over: an example seen before brings its
activations along, and the model goes on from them. Without dropout in the frozen part the results are the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from decaf_node.errors import BadSettings
from decaf_node.training.examples import KEYS


class _Reached(Exception):
    """The first adapted layer is reached; nothing above it needs to run."""


class LowerLayers:
    """Keeps what comes out of the frozen lower ``layers``, for at most ``entries`` examples (least used go first)."""

    def __init__(self, model: nn.Module, layers: list[nn.Module], entries: int) -> None:
        self._model = model
        self._entries = entries
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self._handed: Tensor | None = None
        self._filling = False
        self._captured: Any = None
        self._tuple = False
        for index, layer in enumerate(layers):
            layer.forward = self._instead_of(layer.forward, last=index == len(layers) - 1)
        model.register_forward_pre_hook(self._before, with_kwargs=True)
        model.register_forward_hook(self._after, always_call=True)

    def __len__(self) -> int:
        return len(self._kept)

    def _instead_of(self, forward: Callable[..., Any], last: bool) -> Callable[..., Any]:
        def handed_over(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._handed is not None:
                return (self._handed,) if self._tuple else self._handed
            out = forward(hidden, *args, **kwargs)
            if last and self._filling:
                self._tuple = isinstance(out, tuple)
                self._captured = out[0] if self._tuple else out
                raise _Reached
            return out

        return handed_over

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        keys = kwargs.pop(KEYS, None)
        if keys is not None and not self._filling:
            self._handed = self._activations(keys.tolist(), kwargs["input_ids"], kwargs["attention_mask"])
        return args, kwargs

    def _after(self, _: nn.Module, args: Any, out: Any) -> None:
        self._handed = None

    def _activations(self, keys: list[int], ids: Tensor, mask: Tensor) -> Tensor:
        rows = {key: self._kept[key] for key in keys if key in self._kept}
        missing = [row for row, key in enumerate(keys) if key not in rows]
        if missing:
            fresh = self._run_lower(ids[missing], mask[missing])
            lengths = mask[missing].sum(1).tolist()
            for row, hidden, length in zip(missing, fresh, lengths, strict=True):
                rows[keys[row]] = hidden[:length].clone()
        for key in keys:
            self._keep(key, rows[key])
        return nn.utils.rnn.pad_sequence([rows[key].to(ids.device) for key in keys], batch_first=True)

    def _run_lower(self, ids: Tensor, mask: Tensor) -> Tensor:
        training = self._model.training
        self._filling = True
        self._model.eval()
        try:
            with torch.no_grad():
                self._model(input_ids=ids, attention_mask=mask)
        except _Reached:
            captured: Tensor = self._captured
            return captured
        finally:
            self._filling, self._captured = False, None
            self._model.train(training)
        raise AssertionError("the lower layers did not run")

    def _keep(self, key: int, hidden: Tensor) -> None:
        self._kept[key] = hidden.cpu()
        self._kept.move_to_end(key)
        if len(self._kept) > self._entries:
            self._kept.popitem(last=False)


def cache_lower_layers(model: nn.Module, entries: int) -> LowerLayers:
    """Put a cache under the first layer of ``model`` that trains.

    Batches that carry example keys use it; others go the whole way. Raises BadSettings if nothing can be kept:
    the model has no list of layers, its first layer trains, or something below the first adapted layer does.
    """
    layers = _layer_list(model)
    first = next((index for index, layer in enumerate(layers) if _trains(layer)), 0)
    if first == 0:
        raise BadSettings(
            "model.nothing-to-cache",
            "model.cache_lower_layers needs frozen layers below the adapted ones; set lora.layers_to_transform to "
            "the last few layers, or turn it off.",
        )
    lower = layers[:first]
    if _depends_on_training(model, lower[-1]):
        raise BadSettings(
            "model.nothing-to-cache",
            "model.cache_lower_layers cannot work here: something below the first adapted layer trains "
            "(embeddings or biases); turn it off.",
        )
    return LowerLayers(model, lower, entries)


def _layer_list(model: nn.Module) -> list[nn.Module]:
    """Return the outermost list of layers that holds an adapter (experts of a layer lie deeper)."""
    lists = (list(module) for module in model.modules() if isinstance(module, nn.ModuleList))
    return next((layers for layers in lists if any(_trains(layer) for layer in layers)), [])


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _depends_on_training(model: nn.Module, layer: nn.Module) -> bool:
    """Ask autograd: does what ``layer`` gives out depend on a parameter that trains?"""
    seen: list[bool] = []

    def look(_: nn.Module, args: Any, out: Any) -> None:
        seen.append(bool((out[0] if isinstance(out, tuple) else out).requires_grad))

    handle = layer.register_forward_hook(look)
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    ids = torch.ones((1, 2), dtype=torch.long, device=device)
    with torch.enable_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    model.train(training)
    handle.remove()
    return seen != [False]
