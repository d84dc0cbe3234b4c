"""Which settings make no sense for a task, seen before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from decaf_node.errors import BadSettings
from decaf_node.settings import Settings

OF_TEXTS: Mapping[str, str] = {
    "model.pooling": "it says how a classifier of texts sums up their tokens",
    "model.gguf_file": "transformers reads only models of texts from GGUF",
    "model.cache_lower_layers": "it keeps what becomes of tokens, and an image's activations would fill the memory",
    "data.messages_column": "there are no chats",
    "data.prompt_column": "there are no answers to prompts",
}
UNFIT: Mapping[str, Mapping[str, str]] = {
    "causal-lm": {"training.balance_labels": "it weighs the classes of a classifier"},
    "image-classification": OF_TEXTS,
    "clip": {
        **OF_TEXTS,
        "training.balance_labels": "it weighs the classes of a classifier",
        "privacy.epsilon": "its loss sets the examples of a batch against each other: none has a gradient of its own",
    },
}


def check(settings: Settings) -> None:
    """Raise the first of ``objections``."""
    for objection in objections(settings):
        raise objection


def objections(settings: Settings) -> Iterator[BadSettings]:
    """Yield a sentence for each setting that is set and does not go with ``model.task``."""
    task = settings.model.task
    for name, why in UNFIT.get(task, {}).items():
        section_name, key = name.split(".")
        section = getattr(settings, section_name)
        value = getattr(section, key)
        if value and value != type(section).model_fields[key].default:
            yield BadSettings(
                "model.not-for-task", f'{name} does not go with model.task = "{task}": {why}; take it out.'
            )
