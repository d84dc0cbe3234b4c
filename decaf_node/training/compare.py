"""``python -m decaf_node.training.compare``: adapters side by side on a held-out file. For ``decaf-node eval FILE``.

See ``answering`` for how. Asked are ``settings``, ``file``, ``adapter`` (a folder), ``folder`` (of what is kept: runs
``alone/``, and digests of base models) and ``steps`` (of own-alone; 0: without it). It is a process of its own, of the
lowest priority, and leaves the node alone, but for the memory that it takes on the same device.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decaf_node.errors import BadData, BadSettings, TryAgain
from decaf_node.settings import Settings
from decaf_node.training.answering import answer, doing

if TYPE_CHECKING:
    from decaf_node.training.evaluate import Score
    from decaf_node.training.examples import Example
    from decaf_node.training.tasks.task import Task

LOWEST_PRIORITY = 19


def main() -> int:
    """Compare; return the exit code."""
    os.nice(LOWEST_PRIORITY)
    return answer(_compared)


def _compared(asked: dict[str, Any]) -> dict[str, Any]:
    import torch

    from decaf_node.training.model import choose_device
    from decaf_node.training.offline import quiet

    quiet()
    settings = Settings.model_validate(asked["settings"])
    choose_device(settings.model.device)
    # what is chosen is all that is visible from here on
    model = settings.model.model_copy(update={"device": settings.model.device.partition(":")[0]})
    settings = settings.model_copy(update={"model": model})
    if settings.training.threads:
        torch.set_num_threads(settings.training.threads)
    try:
        file, adapter, folder = (Path(asked[name]) for name in ("file", "adapter", "folder"))
        return compare(settings, file, adapter, folder, asked["steps"], doing)
    except torch.OutOfMemoryError as error:
        raise TryAgain(
            "machine.gpu-full",
            "The GPU has no room for a second model beside what is on it, the node's trainer perhaps; try again when "
            "it is free, or stop the node meanwhile.",
        ) from error


def compare(
    settings: Settings, file: Path, adapter: Path, folder: Path, steps: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Return what base, own-alone (where ``steps`` is not 0) and the exported ``adapter`` score on ``file``.

    Raises BadData for the file; BadSettings ``eval.other-base`` or ``eval.other-task`` where the adapter was not made
    with these settings; and what ``own_alone`` does.
    """
    from decaf_node.training.base import base_fingerprint
    from decaf_node.training.model import check_folder
    from decaf_node.training.own_alone import own_alone
    from decaf_node.training.tasks.table import load_task

    tell("reading the examples")
    check_folder(settings.model)
    plain = settings.model_copy(update={"model": settings.model.model_copy(update={"cache_lower_layers": False})})
    task = load_task(plain)
    examples = task.source.read(file)
    if not examples:
        raise BadData("data.empty", f"{file} holds no rows with text.")
    folder.mkdir(parents=True, exist_ok=True)
    base = base_fingerprint(settings.model, folder / "fingerprints.json")
    _check_notes(settings, adapter, base)
    adapters: dict[str, Path | None] = {"base": None}
    if steps:
        adapters["alone"] = own_alone(
            settings, base, steps, folder / "alone", lambda done: tell(f"own data alone: step {done:,} of {steps:,}")
        )
        gc.collect()
    adapters["mesh"] = adapter
    scores = {}
    for name, exported in adapters.items():
        tell(f"scoring {len(examples):,} examples: {name}")
        scores[name] = _scored(plain, task, exported, examples)
        gc.collect()
    return _table(task.ranked, scores)


def _check_notes(settings: Settings, adapter: Path, base: str) -> None:
    from decaf_node.training.export import read_notes

    notes, model = read_notes(adapter), settings.model
    if notes.base != base:
        raise BadSettings(
            "eval.other-base",
            f"The saved adapter was trained on another base model than {model.path} holds; set model.path back.",
        )
    if (notes.task, notes.pooling, notes.labels) != (model.task, model.pooling, list(model.labels)):
        raise BadSettings(
            "eval.other-task",
            "The saved adapter was trained with another model.task, model.pooling or model.labels; set that back.",
        )


def _scored(settings: Settings, task: Task, adapter: Path | None, examples: Sequence[Example]) -> Score:
    """Return the score of the base with ``adapter``; None: with a new one, which changes nothing of it."""
    import torch

    from decaf_node.training.evaluate import score_each
    from decaf_node.training.export import attach_exported
    from decaf_node.training.lora import attach_lora
    from decaf_node.training.model import load_base

    base = load_base(settings.model, settings.mixing.initial_a_seed)
    model = attach_lora(base, settings) if adapter is None else attach_exported(base, adapter)
    task.prepare(model)
    if settings.model.quantization == "none":  # else it is there already
        model.to("cuda" if torch.cuda.is_available() else "cpu")
    batch = settings.training.arguments.get("per_device_eval_batch_size", 8)
    return score_each(model, examples, task.scorer(), batch)


def _table(ranked: bool, scores: dict[str, Score]) -> dict[str, Any]:
    from decaf_node.training.paired import compare_answers, compare_losses

    mesh = scores["mesh"]
    models = {
        name: {"loss": score.loss, "accuracy": score.accuracy if ranked else None} for name, score in scores.items()
    }
    gains = {}
    for name, score in scores.items():
        if name != "mesh":
            loss = compare_losses(mesh.losses, score.losses, mesh.weights)
            gains[name] = {"loss": {**asdict(loss), "noise": loss.is_noise}, "accuracy": None}
            if ranked:
                answers = compare_answers(mesh.right, score.right)
                gains[name]["accuracy"] = {**asdict(answers), "noise": answers.is_noise}
    return {"examples": len(mesh.weights), "models": models, "mesh_over": gains}


if __name__ == "__main__":
    sys.exit(main())
