"""PEFT's LoRA around the base model: which settings are allowed, and a first A that every node shares."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn

from decaf_node.errors import BadSettings
from decaf_node.settings import Settings
from decaf_node.training.model import first_line, heads_of
from decaf_node.training.pooling import HEAD

ADAPTER = "default"
ALLOWED = frozenset(
    {
        "r",
        "target_modules",
        "exclude_modules",
        "lora_alpha",
        "lora_dropout",
        "fan_in_fan_out",
        "bias",
        "use_rslora",
        "modules_to_save",
        "init_lora_weights",
        "layers_to_transform",
        "layers_pattern",
        "rank_pattern",
        "alpha_pattern",
    }
)
# PiSSA, OLoRA, CorDA, EVA, LoftQ and their like change the base weights or want data of their own: the base would no
# longer be the same at every node.
INITIALISATIONS = (True, False, "gaussian", "orthogonal")
RESEEDED = (True, "gaussian")
QUERY_AND_VALUE = ("q_proj", "v_proj", "query", "value")  # as most vision models in transformers name them
OURS = frozenset({"task_type", "peft_type", "inference_mode", "base_model_name_or_path", "revision", "auto_mapping"})


def check_lora(lora: Mapping[str, Any]) -> None:
    """Raise BadSettings unless PEFT knows every key and the product stays ``s * B * A`` on an unchanged base."""
    known = {field.name: field for field in dataclasses.fields(LoraConfig)}
    for key, value in lora.items():
        if key not in known or key in OURS:
            raise BadSettings("lora.unknown-key", f"[lora] has an unknown key {key}; see PEFT's LoraConfig.")
        if key not in ALLOWED and value != _default(known[key]):
            raise _refused(f"{key} = {value!r}")
    if lora.get("init_lora_weights", True) not in INITIALISATIONS:
        raise _refused(f"init_lora_weights = {lora['init_lora_weights']!r}")


def attach_lora(base: Any, settings: Settings) -> Any:
    """Return the PEFT model around ``base``, the same at every node with the same ``mixing.initial_a_seed``.

    Raises BadSettings if the LoRA settings do not fit the model.
    """
    check_lora(settings.lora)
    seed = settings.mixing.initial_a_seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = get_peft_model(base, LoraConfig(**_lora_arguments(settings, base)))
        except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
            raise BadSettings("lora.does-not-fit", f"[lora] does not fit the model: {first_line(error)}") from error
    keep_trained_modules_exact(model)
    layers = dict(lora_layers(model))
    if not layers:
        raise BadSettings("lora.no-layers", "[lora] matches no layer of the model; set lora.target_modules.")
    initialisation = settings.lora.get("init_lora_weights", True)
    if initialisation in RESEEDED:
        reseed(layers, seed, initialisation)
    return model


def keep_trained_modules_exact(model: Any) -> None:
    """Hold modules_to_save in float32 within a half-precision model: small steps would be rounded away.

    (PEFT does so for the factors.) Raises BadSettings where biases are trained: they sit in the half-precision layers.
    """
    for wrapper in model.modules():
        if isinstance(wrapper, ModulesToSaveWrapper):
            module, dtype = wrapper.modules_to_save[ADAPTER], next(wrapper.original_module.parameters()).dtype
            if dtype != torch.float32:
                module.float()
                module.register_forward_pre_hook(lambda _, inputs: tuple(_floated(value) for value in inputs))
                module.register_forward_hook(lambda _, inputs, out, dtype=dtype: out.to(dtype))
    if any(parameter.requires_grad and parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise BadSettings(
            "lora.half-precision-bias", "[lora] bias can only be trained where model.dtype is float32; change either."
        )


def reseed(layers: Mapping[str, LoraLayer], seed: int, initialisation: bool | str) -> None:
    """Draw each layer's first A from ``seed`` and the layer's name alone, whatever other layers are adapted."""
    for name, layer in layers.items():
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        factors = (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER])
        device = next(factors[0].parameters()).device
        for factor in factors:  # a GPU, where a quantized base already is, draws other numbers
            factor.to("cpu")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(digest[:8], "big", signed=True))
            layer.reset_lora_parameters(ADAPTER, initialisation)  # type: ignore[no-untyped-call]
        for factor in factors:
            factor.to(device)


def lora_layers(model: Any) -> Iterator[tuple[str, LoraLayer]]:
    """Yield name and module of each adapted layer, in the model's order.

    Raises BadSettings for a layer that is not linear: its update is no product of two matrices that we can mix.
    """
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        if isinstance(module, LoraLinear) or isinstance(module.get_base_layer(), nn.Linear):  # the latter: quantized
            yield name, module
        else:
            raise BadSettings(
                "lora.unsupported-layer",
                f"[lora] targets {name}, which is not a linear layer ({type(module).__name__}); "
                "take it out of lora.target_modules.",
            )


def _floated(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _lora_arguments(settings: Settings, base: Any) -> dict[str, Any]:
    arguments = dict(settings.lora)
    model = settings.model
    if model.task == "causal-lm":
        arguments["task_type"] = TaskType.CAUSAL_LM
    elif model.sees_images:  # PEFT has no type for them, so no targets of its own, and knows no head
        if arguments.get("target_modules") is None:
            arguments["target_modules"] = [name for name in QUERY_AND_VALUE if _has(base, name)] or None
        arguments["modules_to_save"] = (
            sorted({*(heads_of(base) if model.classifies else ()), *(arguments.get("modules_to_save") or ())}) or None
        )
    elif model.pooling == "head":
        arguments["task_type"] = TaskType.SEQ_CLS
    else:
        arguments["modules_to_save"] = sorted({HEAD, *(arguments.get("modules_to_save") or ())})
    return arguments


def _has(base: Any, name: str) -> bool:
    return any(module.rpartition(".")[2] == name for module, _ in base.named_modules())


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _refused(setting: str) -> BadSettings:
    return BadSettings(
        "lora.not-a-product",
        f"[lora] {setting} is refused: its update is not s*B*A on an unchanged base, so nodes could not mix it; "
        "take it out.",
    )
