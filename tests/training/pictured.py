"""Small vision models with random weights, and Fashion-MNIST as folders of images."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from decaf_node.settings import Settings
from tests.training.tiny import settings_of

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist
CLOTHES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
SIDE = 28
Array = NDArray[np.uint8]


@cache
def fashion_mnist() -> tuple[Array, Array]:
    """Return the 10,000 test images (n, 28, 28) and their classes; the test is skipped where they are not there."""
    images, labels = (FASHION_MNIST / f"t10k-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    if not images.exists():
        pytest.skip(f"{images} is not there; install Debian's dataset-fashion-mnist")
    pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, SIDE, SIDE)
    return pixels, np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8)


def clothes(folder: Path, each: int, start: int = 0, labels: tuple[str, ...] = CLOTHES) -> Path:
    """Write ``each`` images of every label into FOLDER/LABEL, from the ``start``-th of that label on."""
    pixels, classes = fashion_mnist()
    for label in labels:
        (folder / label).mkdir(parents=True)
        for number in np.flatnonzero(classes == CLOTHES.index(label))[start : start + each]:
            Image.fromarray(pixels[number]).save(folder / label / f"{number}.png")
    return folder


def captioned(folder: Path, each: int, **more: Any) -> Path:
    """Write images beside each other, and their captions and labels into metadata.jsonl."""
    pixels, classes = fashion_mnist()
    folder.mkdir(parents=True)
    rows = []
    for number in np.concatenate([np.flatnonzero(classes == label)[:each] for label in range(len(CLOTHES))]):
        label = CLOTHES[classes[number]]
        Image.fromarray(pixels[number]).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "text": f"this is a {label}", "label": label, **more})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def make_vit(folder: Path, width: int = 64, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = ViTConfig(
        image_size=SIDE,
        patch_size=7,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def make_clip(folder: Path, width: int = 64, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    tower = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "projection_dim": width,
    }
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = {**tower, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": 16}
    vision = {**tower, "image_size": SIDE, "patch_size": 7}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)).save_pretrained(folder)
    side = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=side).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words between a begin and an end token, as CLIP wants them."""
    words = ["[PAD]", "[UNK]", "<begin>", "<end>", "a", "photo", "of", "this", "is", ".", *CLOTHES]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<begin> $A <end>", special_tokens=[("<begin>", 2), ("<end>", 3)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", bos_token="<begin>", eos_token="<end>"
    )


def image_settings(task: str, model: Path, folder: Path, /, **sections: Mapping[str, Any]) -> Settings:
    """Settings of a task with images; ``sections`` are laid over them key by key."""
    return settings_of(
        {
            "model": {"path": model, "task": task, "labels": CLOTHES, "device": "cpu"},
            "data": {"train": [folder], "evaluation_fraction": 0.25},
            "lora": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
        },
        sections,
    )
