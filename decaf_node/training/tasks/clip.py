"""clip: images and their captions, by CLIP's contrastive loss; scored by zero-shot classification.

In a batch of n pairs each image is to find its caption among all n, and each caption its image: the mean of both cross
entropies (arXiv 2103.00020). Every caption but its own counts as wrong, as it does there, even one that reads the same.
The temperature is the base model's and stays: it is no matrix that LoRA could adapt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig

from decaf_node.errors import BadData
from decaf_node.settings import Settings
from decaf_node.training.evaluate import Score, Scorer, to_device
from decaf_node.training.examples import Example
from decaf_node.training.examples import collate as collate_texts
from decaf_node.training.model import load_image_processor, load_tokenizer
from decaf_node.training.tasks.folders import Picture, pictures_in
from decaf_node.training.tasks.pictures import ImageFolders, Pixels
from decaf_node.training.tasks.task import Task, as_it_is

LABEL = "{label}"
LEGACY_END = 2  # in old configurations, where CLIPModel takes the highest token for the end


def clip_task(settings: Settings) -> Task:
    """Return the task for clip. Raises BadData."""
    data, labels = settings.data, settings.model.labels
    pairs = Pairs(settings)
    find = partial(pictures_in, labels=labels, label_column=data.label_column, text_column=data.text_column)
    return Task(
        reads="a tokenizer and an image processor",
        source=ImageFolders(find, pairs.examples),
        collate=pairs.collate,
        scorer=lambda: zero_shot(pairs) if labels else contrast(pairs),
        ranked=bool(labels),
        prepare=as_it_is,
    )


class Pairs:
    """Pairs of image and caption, as the two towers take them. prompts: the caption of each label."""

    def __init__(self, settings: Settings) -> None:
        self._tokenizer = load_tokenizer(settings.model)
        self.pixels = Pixels(load_image_processor(settings.model))
        self._template = settings.data.caption
        self._known = {label: index for index, label in enumerate(settings.model.labels)}
        text = AutoConfig.from_pretrained(settings.model.path, local_files_only=True).text_config
        self._limit = min(settings.data.max_length, text.max_position_embeddings)
        self.prompts = self._encoded([self._template.replace(LABEL, label) for label in self._known])
        (sample,) = self._encoded([self._template])
        if text.eos_token_id not in (LEGACY_END, *sample.tolist()):
            raise BadData(
                "model.no-end-token",
                f"The tokenizer in {settings.model.path} does not end texts with the token {text.eos_token_id}, where "
                "the model looks for their meaning; take the tokenizer that belongs to the model.",
            )

    def examples(self, pictures: Sequence[Picture], contents: Sequence[float]) -> list[Example]:
        """Return an example for each picture. Raises BadData if one has neither caption nor label."""
        tokens = self._encoded([self._caption(picture) for picture in pictures])
        return [
            Example(ids, self._known.get(picture.label, -1), 0, 0, content, str(picture.path))
            for ids, picture, content in zip(tokens, pictures, contents, strict=True)
        ]

    def collate(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return one batch of the pairs whose image can be read."""
        read, pixels = self.pixels(examples)
        return {**self.texts([example.tokens for example in read]), "pixel_values": pixels, "return_loss": True}

    def texts(self, tokens: Sequence[Any]) -> dict[str, Tensor]:
        """Return tokens as the text tower takes them."""
        texts = [Example(ids, -1, 0, 0, 0.0) for ids in tokens]
        batch = collate_texts(texts, self._tokenizer.pad_token_id, causal=False, keyed=False)
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}

    def _caption(self, picture: Picture) -> str:
        if not picture.caption and not picture.label:
            raise BadData(
                "data.no-caption",
                f"{picture.path} has no caption: give it one in metadata.jsonl, or put it into its label's folder.",
            )
        return picture.caption or self._template.replace(LABEL, picture.label)

    def _encoded(self, texts: list[str]) -> list[Any]:
        ids = self._tokenizer(texts, truncation=True, max_length=self._limit)["input_ids"] if texts else []
        return [np.asarray(one, dtype=np.int32) for one in ids]


def zero_shot(pairs: Pairs) -> Scorer:
    """Score by which label's prompt an image is most like; the loss is the cross entropy over the prompts.

    So the loss does not depend on which images share a batch. The prompts go through the text tower once: a scorer is
    for one evaluation, while the model does not change.
    """
    every = pairs.texts(pairs.prompts)
    one = {name: tensor[:1] for name, tensor in every.items()}
    prompts: list[Tensor] = []

    def score(model: Any, examples: Sequence[Example]) -> Score:
        read, pixels = pairs.pixels(examples)
        out = model(**to_device({**(one if prompts else every), "pixel_values": pixels}, model))
        if not prompts:
            prompts.append(out.text_embeds.float())
        scale = model.get_base_model().logit_scale.float().exp()
        logits = scale * out.image_embeds.float() @ prompts[0].T
        labels = torch.tensor([example.label for example in read], device=logits.device)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return Score(losses.tolist(), [1.0] * len(read), (logits.argmax(-1) == labels).tolist())

    return score


def contrast(pairs: Pairs) -> Scorer:
    """Score by the loss that is trained with, for captions without labels. It depends on the size of the batches."""

    def score(model: Any, examples: Sequence[Example]) -> Score:
        batch = pairs.collate(examples)
        del batch["return_loss"]
        logits = model(**to_device(batch, model)).logits_per_image.float()
        own = torch.arange(len(logits), device=logits.device)
        both = [functional.cross_entropy(side, own, reduction="none") for side in (logits, logits.T)]
        return Score(((both[0] + both[1]) / 2).tolist(), [1.0] * len(own), [False] * len(own))

    return score
