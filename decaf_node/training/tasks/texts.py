"""Language models and classifiers of texts."""

from __future__ import annotations

from functools import partial
from typing import Any

from decaf_node.settings import Settings
from decaf_node.training.cache import cache_lower_layers
from decaf_node.training.data import Rows
from decaf_node.training.evaluate import Scorer, classify, predict_tokens, rank_answers
from decaf_node.training.examples import answer_tokens, collate
from decaf_node.training.model import load_tokenizer
from decaf_node.training.prompts import skip_prompt_logits
from decaf_node.training.tasks.task import Task


def text_task(settings: Settings) -> Task:
    """Return the task for causal-lm or sequence-classification. Raises BadData, BadSettings."""
    tokenizer = load_tokenizer(settings.model)
    pad, keyed = tokenizer.pad_token_id, settings.model.cache_lower_layers
    causal = settings.model.task == "causal-lm"
    return Task(
        reads="a tokenizer",
        source=Rows(settings, tokenizer),
        collate=partial(collate, pad=pad, causal=causal, keyed=keyed),
        scorer=lambda: _scorer(settings, tokenizer, causal),
        ranked=bool(settings.model.labels) and (not causal or bool(settings.data.prompt_column)),
        prepare=lambda model: _prepare(model, settings, pad, causal),
        causal=causal,
    )


def _scorer(settings: Settings, tokenizer: Any, causal: bool) -> Scorer:
    pad, keyed = tokenizer.pad_token_id, settings.model.cache_lower_layers
    if not causal:
        return classify(pad, keyed)
    if settings.model.labels and settings.data.prompt_column:
        limit = settings.data.max_length
        return rank_answers(pad, [answer_tokens(tokenizer, "", label, limit)[1] for label in settings.model.labels])
    return predict_tokens(pad, keyed)


def _prepare(model: Any, settings: Settings, pad: int, causal: bool) -> None:
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad
    if causal:
        skip_prompt_logits(model)
    if settings.model.cache_lower_layers:
        cache_lower_layers(model, settings.data.cache_entries)
