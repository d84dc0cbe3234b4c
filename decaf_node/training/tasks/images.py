"""image-classification: which of ``model.labels`` an image shows; its folder's name says it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from decaf_node.settings import Settings
from decaf_node.training.evaluate import classify_batches
from decaf_node.training.examples import Example
from decaf_node.training.model import check_labels, load_image_processor
from decaf_node.training.tasks.folders import Picture, pictures_in
from decaf_node.training.tasks.pictures import ImageFolders, Pixels
from decaf_node.training.tasks.task import Task, as_it_is

NO_TOKENS = np.zeros(0, dtype=np.int32)


def image_task(settings: Settings) -> Task:
    """Return the task for image-classification. Raises BadData, BadSettings."""
    check_labels(settings.model)
    labels = settings.model.labels
    pixels = Pixels(load_image_processor(settings.model))
    find = partial(pictures_in, labels=labels, label_column=settings.data.label_column)
    together = partial(collate, pixels)
    return Task(
        reads="an image processor",
        source=ImageFolders(find, partial(_examples, {label: index for index, label in enumerate(labels)})),
        collate=together,
        scorer=lambda: classify_batches(together),
        ranked=True,
        prepare=as_it_is,
    )


def collate(pixels: Pixels, examples: Sequence[Example]) -> dict[str, Any]:
    """Return one batch of the images that can be read."""
    read, values = pixels(examples)
    return {"pixel_values": values, "labels": torch.tensor([example.label for example in read])}


def _examples(known: dict[str, int], pictures: Sequence[Picture], contents: Sequence[float]) -> list[Example]:
    return [
        Example(NO_TOKENS, known[picture.label], 0, 0, content, str(picture.path))
        for picture, content in zip(pictures, contents, strict=True)
    ]
