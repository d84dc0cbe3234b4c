"""A base in 8 or 4 bits by bitsandbytes: on a small GPU, or on the CPU, the frozen weights take a quarter or less.

Only how this node holds its base changes. The files stay as they are, and so does the base's fingerprint: such a node
mixes with nodes that hold the same base in full. What is mixed are the products, and those are in float32 at all.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import torch

from decaf_node.errors import BadSettings
from decaf_node.settings import ModelSection

SIDE = 64  # of a layer that is tried


def check_quantization(model: ModelSection) -> None:
    """Raise BadSettings unless bitsandbytes is here and works on the chosen device. Loads no model."""
    if model.quantization == "none":
        return
    if find_spec("bitsandbytes") is None:
        raise BadSettings(
            "model.no-bitsandbytes",
            f'model.quantization = "{model.quantization}" needs bitsandbytes, which is not installed here: run '
            'pip install "decaf-node[quantized]", or take it out.',
        )
    try:
        _try(model)
    except (RuntimeError, ImportError, OSError, NotImplementedError, AttributeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise BadSettings(
            "model.quantization-fails",
            f'model.quantization = "{model.quantization}" does not work on this device '
            f"({_device(model)}): bitsandbytes says {said}; take it out, or set model.device to cpu.",
        ) from error


def quantized(model: ModelSection) -> dict[str, Any]:
    """Return what ``from_pretrained`` is told. 4bit: NF4, its scales quantized too (QLoRA, arXiv 2305.14314)."""
    from transformers import BitsAndBytesConfig

    if model.quantization == "none":
        return {}
    if model.quantization == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    else:
        config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, model.dtype),
        )
    return {"quantization_config": config, "device_map": {"": _device(model)}}


def _device(model: ModelSection) -> torch.device:
    """Return where this process trains: it sees one GPU, or as many as there are processes."""
    if model.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _try(model: ModelSection) -> None:
    """Run one small layer."""
    import bitsandbytes

    kinds = {"8bit": bitsandbytes.nn.Linear8bitLt, "4bit": bitsandbytes.nn.Linear4bit}
    options: dict[str, Any] = {"has_fp16_weights": False} if model.quantization == "8bit" else {"quant_type": "nf4"}
    dtype = getattr(torch, model.dtype)
    device = _device(model)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        layer = kinds[model.quantization](SIDE, SIDE, bias=False, **options).to(device)
        layer(torch.ones(1, SIDE, dtype=dtype, device=device))
