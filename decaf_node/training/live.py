"""The adapter inside a PEFT model: read it out, load another in place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from decaf_node.errors import BadData, BadSettings
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.product import Product
from decaf_node.training.lora import lora_layers


@dataclass(frozen=True)
class LiveLayer:
    a: nn.Parameter
    b: nn.Parameter
    scale: float


@dataclass
class LiveAdapter:
    """References into a model: its LoRA layers and its other trained tensors, named as in PEFT's state dict.

    loads: how often another adapter was written into it.
    """

    layers: dict[str, LiveLayer]
    tensors: dict[str, nn.Parameter]
    loads: int = field(default=0, init=False)

    @property
    def rank(self) -> int:
        return max(layer.a.shape[0] for layer in self.layers.values())

    @property
    def device(self) -> torch.device:
        return next(iter(self.layers.values())).a.device

    @property
    def parameters(self) -> int:
        """How many numbers are trained or mixed."""
        return sum(tensor.numel() for tensor in self.named().values())

    def named(self) -> dict[str, nn.Parameter]:
        """Return every parameter under one name, for the optimizer's state."""
        factors = {f"{name}.lora_A.weight": layer.a for name, layer in self.layers.items()}
        factors |= {f"{name}.lora_B.weight": layer.b for name, layer in self.layers.items()}
        return factors | self.tensors

    def read(self) -> Adapter:
        """Return a copy of the adapter as it is now, on the model's device."""
        return Adapter(
            products={
                name: Product(layer.b.detach().clone(), layer.a.detach().clone(), layer.scale)
                for name, layer in self.layers.items()
            },
            tensors={name: tensor.detach().clone() for name, tensor in self.tensors.items()},
        )

    def load(self, adapter: Adapter) -> None:
        """Write ``adapter`` into the model in place, so that the optimizer keeps its parameters.

        Raises BadData if its layers, ranks, scales or shapes are not this model's; then nothing is written.
        """
        if not self.fits(adapter):
            raise BadData(
                "training.adapter-does-not-fit", "An adapter has other layers, ranks or scales than the model."
            )
        self.loads += 1
        pairs = [(self.layers[name].a, product.a) for name, product in adapter.products.items()]
        pairs += [(self.layers[name].b, product.b) for name, product in adapter.products.items()]
        pairs += [(self.tensors[name], tensor) for name, tensor in adapter.tensors.items()]
        with torch.no_grad():
            for target, value in pairs:
                target.copy_(value)

    def fits(self, adapter: Adapter) -> bool:
        """Say whether ``adapter`` has the same layers and tensors, with the same shapes and scales."""
        return (
            adapter.products.keys() == self.layers.keys()
            and adapter.tensors.keys() == self.tensors.keys()
            and all(_same(self.layers[name], product) for name, product in adapter.products.items())
            and all(self.tensors[name].shape == tensor.shape for name, tensor in adapter.tensors.items())
        )


def find_adapter(model: Any) -> LiveAdapter:
    """Return the live adapter of a PEFT model: its active LoRA adapter and all else that trains.

    Raises BadSettings as ``lora_layers`` does.
    """
    active = active_adapter(model)
    layers = {
        name: LiveLayer(_weight(layer.lora_A, active), _weight(layer.lora_B, active), float(layer.scaling[active]))
        for name, layer in lora_layers(model)
        if active in layer.lora_A
    }
    factors = {id(parameter) for layer in layers.values() for parameter in (layer.a, layer.b)}
    tensors = {
        _plain_name(name, active): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in factors
    }
    return LiveAdapter(layers, tensors)


def active_adapter(model: Any) -> str:
    """Return the name of the adapter that trains."""
    active = model.active_adapter
    return str(active if isinstance(active, str) else active[0])


def check_trains(optimizer: Any, live: LiveAdapter) -> None:
    """Raise BadSettings unless ``optimizer`` moves the very parameters of ``live``, and not a copy of them.

    A wrapper around the model, for privacy or for several devices, may train copies: losses fall, and what is
    published, mixed and saved never changes.
    """
    moved_here = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = sorted(
        name for name, parameter in live.named().items() if parameter.requires_grad and id(parameter) not in moved_here
    )
    if missing:
        raise BadSettings(
            "training.other-weights",
            f"The optimizer does not train the model's own adapter ({missing[0]} and {len(missing) - 1} more are not "
            "in it): make it after the model is wrapped and on its device, from the parameters of the wrapped model.",
        )


def freeze_a(live: LiveAdapter) -> None:
    """Keep every A as it is from now on (dlora-fa)."""
    for layer in live.layers.values():
        layer.a.requires_grad_(False)


def moved(adapter: Adapter, device: torch.device) -> Adapter:
    """Return ``adapter`` on ``device``."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device)

    return Adapter(
        products={name: Product(move(p.b), move(p.a), p.scale) for name, p in adapter.products.items()},
        tensors={name: move(tensor) for name, tensor in adapter.tensors.items()},
    )


def _weight(factors: nn.ModuleDict, active: str) -> nn.Parameter:
    weight = factors[active].weight
    assert isinstance(weight, nn.Parameter)
    return weight


def _plain_name(name: str, active: str) -> str:
    return name.replace(f".modules_to_save.{active}.", ".").replace(f".{active}.", ".")


def _same(layer: LiveLayer, product: Product) -> bool:
    return product.a.shape == layer.a.shape and product.b.shape == layer.b.shape and product.scale == layer.scale
