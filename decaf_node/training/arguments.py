"""transformers' TrainingArguments for a training that has no end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from decaf_node.errors import BadSettings
from decaf_node.settings import Settings
from decaf_node.training.model import first_line

LEARNING_RATE = 3e-4  # transformers' own, 5e-5, is for all weights of a model: an adapter hardly moves with it
ENDLESS = 2**40  # optimizer steps: not reached in this world
SCHEDULES = ("constant", "constant_with_warmup", "inverse_sqrt")
# What the node decides itself, or what has no meaning for it.
OURS: dict[str, str] = {
    "output_dir": "a node keeps its state in its own folder",
    "max_steps": "training has no end; see round.limit",
    "num_train_epochs": "training has no end; see round.limit",
    "seed": "see training.seed",
    "data_seed": "see training.seed",
    "use_cpu": "see model.device",
    "save_strategy": "a node saves its rounds; see store.save_every",
    "save_steps": "a node saves its rounds; see store.save_every",
    "eval_strategy": "see round.evaluate_every",
    "eval_steps": "see round.evaluate_every",
    "logging_strategy": "a node reports its rounds",
    "logging_steps": "a node reports its rounds",
    "logging_nan_inf_filter": "a loss that is not finite must be seen",
    "report_to": "a node reports its rounds",
    "disable_tqdm": "a node shows no progress bar",
    "remove_unused_columns": "the examples have no columns",
    "dataloader_num_workers": "the trainer reads its examples itself",
    "resume_from_checkpoint": "a node resumes by itself",
    "push_to_hub": "a node publishes nothing",
    "warmup_ratio": "training has no end to take a part of; use warmup_steps",
}


def training_arguments(settings: Settings, folder: Path) -> TrainingArguments:
    """Return the arguments of a ``Trainer`` with ``training.arguments`` passed through.

    ``folder`` is scratch space. Raises BadSettings, naming the key that is unknown, ours, or does not fit.
    """
    given = settings.training.arguments
    check_arguments(given)
    defaults: dict[str, Any] = {
        "lr_scheduler_type": "constant_with_warmup",
        "learning_rate": LEARNING_RATE,
        "dataloader_pin_memory": torch.cuda.is_available(),
        # several processes: each takes its own batches, as rank 0 could not cut one of unequal lengths for all
        "accelerator_config": {"dispatch_batches": False},
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if given.get("gradient_checkpointing") else None,
    }
    try:
        return TrainingArguments(
            **{**defaults, **given},
            output_dir=str(folder),
            max_steps=ENDLESS,
            seed=settings.training.seed,
            use_cpu=settings.model.device == "cpu",
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            logging_nan_inf_filter=False,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_num_workers=0,
        )
    except (ValueError, TypeError, ImportError) as error:
        raise BadSettings("training.bad-argument", f"[training.arguments] does not fit: {first_line(error)}") from error


def check_arguments(given: Mapping[str, Any]) -> None:
    """Raise BadSettings for a key that TrainingArguments does not have or a node decides itself."""
    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    for key in given:
        if key in OURS:
            raise BadSettings(
                "training.argument-is-ours", f"[training.arguments] may not set {key}: {OURS[key]}; take it out."
            )
        if key not in known:
            raise BadSettings(
                "training.unknown-argument",
                f"[training.arguments] has an unknown key {key}; see transformers' TrainingArguments.",
            )
    schedule = str(given.get("lr_scheduler_type", SCHEDULES[0]))
    if schedule not in SCHEDULES:
        raise BadSettings(
            "training.schedule-needs-an-end",
            f"[training.arguments] lr_scheduler_type = {schedule!r} needs to know when training ends, and it does not; "
            f"choose one of {', '.join(SCHEDULES)}.",
        )
