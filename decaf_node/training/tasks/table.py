"""Every task by the name that ``model.task`` has for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from decaf_node.settings import Settings
from decaf_node.training.tasks.clip import clip_task
from decaf_node.training.tasks.images import image_task
from decaf_node.training.tasks.task import Task
from decaf_node.training.tasks.texts import text_task

TASKS: Mapping[str, Callable[[Settings], Task]] = {
    "causal-lm": text_task,
    "sequence-classification": text_task,
    "image-classification": image_task,
    "clip": clip_task,
}


def load_task(settings: Settings) -> Task:
    """Return the task of the settings, with what it reads from the model's folder. Raises BadData, BadSettings."""
    return TASKS[settings.model.task](settings)
