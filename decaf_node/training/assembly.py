"""The built-in trainer, put together: model, adapter, data and a transformers ``Trainer`` around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from decaf_node.link import Welcome
from decaf_node.settings import Settings
from decaf_node.training.arguments import training_arguments
from decaf_node.training.cache import cache_lower_layers
from decaf_node.training.callback import DecafCallback
from decaf_node.training.data import Data, Stream, load_data
from decaf_node.training.evaluate import Evaluation, Scorer, classify, evaluate, predict_tokens, rank_answers
from decaf_node.training.examples import answer_tokens, collate
from decaf_node.training.held_out import Loss, slice_of
from decaf_node.training.host import Evaluator
from decaf_node.training.link import Link
from decaf_node.training.live import find_adapter, freeze_a
from decaf_node.training.lora import attach_lora, check_lora
from decaf_node.training.model import check_folder, choose_device, load_base, load_tokenizer
from decaf_node.training.offline import quiet
from decaf_node.training.private.demands import check as check_private
from decaf_node.training.private.demands import wants_privacy
from decaf_node.training.prompts import skip_prompt_logits


@dataclass(frozen=True)
class Assembled:
    """Everything loaded; ``trainer.train()`` goes on until the daemon stops it."""

    trainer: Trainer
    model: Any
    data: Data


class ForgetHistory(TrainerCallback):
    """Keeps the Trainer's own log from growing for ever."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        state.log_history.clear()


def assemble(settings: Settings, link: Link, welcome: Welcome, scratch: Path) -> Assembled:
    """Load model and data and build the Trainer. Raises DecafError for whatever does not fit.

    What can be checked without loading anything is checked first.
    """
    quiet()
    choose_device(settings.model.device)
    if settings.training.threads:
        torch.set_num_threads(settings.training.threads)
    check_private(settings)
    check_lora(settings.lora)
    arguments = training_arguments(settings, scratch)
    check_folder(settings.model)
    tokenizer = load_tokenizer(settings.model)
    data = load_data(settings, tokenizer)
    model = attach_lora(load_base(settings.model, settings.mixing.initial_a_seed), settings)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    if settings.round.algorithm == "dlora-fa":
        freeze_a(find_adapter(model))
    if _is_causal(settings):
        skip_prompt_logits(model)
    if settings.model.cache_lower_layers:
        cache_lower_layers(model, settings.data.cache_entries)
    collator = partial(
        collate, pad=tokenizer.pad_token_id, causal=_is_causal(settings), keyed=settings.model.cache_lower_layers
    )
    evaluator = _evaluator(settings, model, data, tokenizer, arguments.per_device_eval_batch_size)
    callback = partial(DecafCallback, link=link, welcome=welcome, evaluate=evaluator)
    if wants_privacy(settings.privacy):
        trainer = _private_trainer(settings, Path(welcome.account), model, arguments, data.stream, collator, callback)
    else:
        scored_by = _held_out(settings, model, data, tokenizer, arguments.per_device_eval_batch_size)
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=data.stream,
            data_collator=collator,
            callbacks=[callback(stream=data.stream, held_out=scored_by), ForgetHistory()],
        )
    trainer.remove_callback(PrinterCallback)
    return Assembled(trainer, model, data)


def _private_trainer(
    settings: Settings,
    account_path: Path,
    model: Any,
    arguments: TrainingArguments,
    stream: Stream,
    collator: Callable[..., Any],
    callback: Callable[..., DecafCallback],
) -> Trainer:
    """Return a Trainer with private steps. Batches are drawn afresh, so there is no place in the data to go on from."""
    from decaf_node.training.private.trainer import PrivateTrainer, open_account  # Opacus is an extra

    account = open_account(settings, account_path, len(stream.examples), arguments.per_device_train_batch_size)
    assert settings.privacy.max_grad_norm is not None, "the settings see to it"
    return PrivateTrainer(
        model=model,
        args=arguments,
        stream=stream,
        collate=collator,
        account=account,
        max_grad_norm=settings.privacy.max_grad_norm,
        causal=_is_causal(settings),
        callbacks=[callback(account=account), ForgetHistory()],
    )


def _evaluator(settings: Settings, model: Any, data: Data, tokenizer: Any, batch: int) -> Evaluator:
    scorer = _scorer(settings, tokenizer)
    ranked = bool(settings.model.labels) and (not _is_causal(settings) or bool(settings.data.prompt_column))

    def score(between: Callable[[], None]) -> Evaluation | None:
        return evaluate(model, data.evaluation, scorer, batch, ranked, between) if data.evaluation else None

    return score


def _held_out(settings: Settings, model: Any, data: Data, tokenizer: Any, batch: int) -> Loss | None:
    examples, scorer = slice_of(data.evaluation), _scorer(settings, tokenizer)
    return (lambda: evaluate(model, examples, scorer, batch, ranked=False).loss) if examples else None


def _scorer(settings: Settings, tokenizer: Any) -> Scorer:
    pad, keyed = tokenizer.pad_token_id, settings.model.cache_lower_layers
    if not _is_causal(settings):
        return classify(pad, keyed)
    if settings.model.labels and settings.data.prompt_column:
        limit = settings.data.max_length
        return rank_answers(pad, [answer_tokens(tokenizer, "", label, limit)[1] for label in settings.model.labels])
    return predict_tokens(pad, keyed)


def _is_causal(settings: Settings) -> bool:
    return settings.model.task == "causal-lm"
