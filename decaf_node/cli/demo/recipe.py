"""What the four nodes train, and how: numbers from trials, none of them tuned on the demo's test set by the demo."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decaf_node.errors import BadData

NODES = 4
TOPICS_PROMPT = "{text}\n\nWhich topic is this: {labels}?\nTopic:"
PROMPT_CHARACTERS = 300  # the headline and two or three sentences


@dataclass(frozen=True)
class Recipe:
    """Sections of the settings, and sizes. steps: local steps a round. share: most articles of a node.

    test: most articles of the common test set. evaluations: about how often a node is measured on it.
    language: a language model answers in words. one_place: arguments that suit one place better: its steps are not
    averaged with others, so the rate that is best for the mesh is too high for it.
    """

    model: dict[str, Any]
    lora: dict[str, Any]
    data: dict[str, Any]
    arguments: dict[str, Any]
    steps: int
    rounds: int
    share: int
    test: int
    evaluations: int
    language: bool = False
    one_place: dict[str, Any] = field(default_factory=dict)


def classifier(model: Path, iid: bool) -> Recipe:
    """A text encoder with mean pooling. Only the last two layers are adapted, so the frozen rest is cached."""
    layers = _layers(model)
    return Recipe(
        model={
            "path": str(model),
            "task": "sequence-classification",
            "pooling": "mean",
            "dtype": fast_dtype(),
            "cache_lower_layers": True,
        },
        lora={
            "r": 8,
            "lora_alpha": 16,
            "target_modules": ["query", "value"],
            "layers_to_transform": [layers - 2, layers - 1],
        },
        data={"max_length": 64},
        arguments={"per_device_train_batch_size": 8, "learning_rate": 5e-3},
        one_place={"learning_rate": 2e-3},
        steps=3,
        rounds=30,
        share=20 if iid else 60,
        test=300,
        evaluations=10,
    )


def own_classifier(model: Path, iid: bool) -> Recipe:
    """Any text encoder of the user's: every linear layer is adapted, as nothing is known of its parts."""
    return Recipe(
        model={"path": str(model), "task": "sequence-classification", "pooling": "mean", "dtype": fast_dtype()},
        lora={"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        data={"max_length": 128},
        arguments={"per_device_train_batch_size": 8, "learning_rate": 5e-4},
        steps=3,
        rounds=30,
        share=60 if iid else 240,
        test=300,
        evaluations=10,
    )


def language_model(model: Path, iid: bool) -> Recipe:
    """A causal language model that answers with the label's word."""
    return Recipe(
        model={"path": str(model), "task": "causal-lm", "dtype": fast_dtype()},
        lora={"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
        data={"max_length": 128, "prompt_column": "prompt"},
        arguments={"per_device_train_batch_size": 4, "per_device_eval_batch_size": 16, "learning_rate": 4e-3},
        one_place={"learning_rate": 2e-3},
        steps=2,
        rounds=12,
        share=20 if iid else 60,
        test=100,
        evaluations=3,
        language=True,
    )


def prompt(text: str, labels: tuple[str, ...]) -> str:
    """Return the question that a language model is asked about ``text``."""
    choices = ", ".join(labels[:-1]) + f" or {labels[-1]}"
    return TOPICS_PROMPT.format(text=beginning(text.strip()), labels=choices)


def beginning(text: str) -> str:
    """Return the first words of ``text``, with dots where it goes on."""
    if len(text) <= PROMPT_CHARACTERS:
        return text
    whole = re.match(rf"(?s).{{1,{PROMPT_CHARACTERS}}}(?=\s)", text)
    return (whole[0] if whole else text[:PROMPT_CHARACTERS]).rstrip() + " ..."


def fast_dtype() -> str:
    """Return bfloat16 where the CPU computes in it (elsewhere it is slower than float32), else float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return "float32"
    return "bfloat16" if {"avx512_bf16", "bf16"} & set(flags) else "float32"


def _layers(model: Path) -> int:
    try:
        return int(json.loads((model / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"])
    except (OSError, ValueError, KeyError) as error:
        raise BadData(
            "model.not-a-model", f"{model} is not the model folder that the demo needs: its config.json says {error}."
        ) from error
