"""Fashion-MNIST, and a ViT that tells its images apart: what the frozen layers make of an image is kept."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from benchmarks.learning.task import Sections, Task, task_of
from benchmarks.learning.vit import converted
from benchmarks.one_model import BATCH, Shared
from decaf_node.errors import BadData
from decaf_node.settings import Settings
from decaf_node.training.evaluate import classify_batches
from decaf_node.training.examples import Example
from decaf_node.training.live import find_adapter
from decaf_node.training.lora import attach_lora
from decaf_node.training.model import load_base, load_image_processor
from decaf_node.training.tasks.images import NO_TOKENS, image_task

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist
CLOTHES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
LAYERS = [10, 11]  # that are adapted, of twelve: query and value
SIDE = 28
SEEN = {"height": 56, "width": 56}  # sixteen patches; at the 224 that the model is made for they are 256

Key = tuple[str, int]
"""The model's dtype, and a garment's key."""


def fashion_mnist(assets: Path) -> Task:
    """Return the clothes, told apart by a ViT-S. Raises BadData if they, or the model, are not there."""
    drawn = Random(0)
    rest, test = read_garments("train"), read_garments("t10k")
    drawn.shuffle(rest)
    drawn.shuffle(test)
    sections: Sections = {
        "model": {"path": str(converted(assets)), "task": "image-classification"},
        "lora": {"layers_to_transform": LAYERS},
        "data": {},
        "arguments": {"per_device_train_batch_size": 8},
    }
    return task_of(rest, test, sections, partial(load_images, kept={}))


@dataclass(frozen=True)
class Garment:
    """pixels: grey, (28, 28)."""

    pixels: NDArray[np.uint8]
    label: str

    @property
    def key(self) -> int:
        digest = hashlib.blake2b(self.pixels.tobytes(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


def load_images(settings: Settings, kept: dict[Key, Tensor]) -> Shared:
    """Load the classifier of the product's task, a Dinov2; an image goes through its frozen lower layers once.

    kept: what these have made of images; the same for all ranks
    """
    dtype = settings.model.dtype
    model = attach_lora(load_base(settings.model, settings.mixing.initial_a_seed), settings)
    lower = cut_off(model.get_base_model(), min(settings.lora["layers_to_transform"]))
    processor, known = load_image_processor(settings.model), settings.model.labels

    def encode(garments: Sequence[Garment]) -> list[Example]:
        new = [garment for garment in garments if (dtype, garment.key) not in kept]
        for part in (new[start : start + BATCH] for start in range(0, len(new), BATCH)):
            images = [Image.fromarray(garment.pixels).convert("RGB") for garment in part]
            with torch.no_grad():
                pixels = processor(images=images, size=SEEN, return_tensors="pt")["pixel_values"]
                made = lower(pixels.to(getattr(torch, dtype)))
            kept.update(zip([(dtype, garment.key) for garment in part], made, strict=True))
        return [Example(NO_TOKENS, known.index(garment.label), 0, garment.key, 0.0) for garment in garments]

    def collate(examples: Sequence[Example]) -> dict[str, Any]:
        labels = torch.tensor([example.label for example in examples])
        return {"pixel_values": torch.stack([kept[dtype, example.key] for example in examples]), "labels": labels}

    task = replace(image_task(settings), collate=collate, scorer=lambda: classify_batches(collate))
    live = find_adapter(model)
    return Shared(settings, model, live, live.read(), task, encode)


def cut_off(classifier: Any, first: int) -> Callable[[Tensor], Tensor]:
    """Take what lies below layer ``first`` out of a Dinov2 and return it: it makes activations of pixels.

    From now on the classifier takes these in place of pixels.
    """
    backbone = classifier.dinov2
    layers = backbone.encoder.layer
    lower = nn.Sequential(backbone.embeddings, *layers[:first]).eval()
    backbone.embeddings = Given()
    for number in range(first):
        layers[number] = Given()
    return lower


class Given(nn.Module):
    """A layer that has been run already."""

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden


def read_garments(part: str) -> list[Garment]:
    """Return the images of ``train`` or ``t10k``; no two are alike. Raises BadData if they are not there."""
    images, classes = (FASHION_MNIST / f"{part}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    if not images.exists():
        raise BadData("data.missing", f"{images} is not there; install Debian's dataset-fashion-mnist.")
    pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, SIDE, SIDE)
    labels = np.frombuffer(gzip.decompress(classes.read_bytes()), np.uint8, offset=8)
    return [Garment(image, CLOTHES[label]) for image, label in zip(pixels, labels, strict=True)]
