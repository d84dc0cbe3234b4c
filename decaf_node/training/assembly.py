"""The built-in trainer, put together: model, adapter, data and a transformers ``Trainer`` around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from decaf_node.link import Welcome
from decaf_node.settings import Settings
from decaf_node.training.arguments import training_arguments
from decaf_node.training.balance import BalancedLoss
from decaf_node.training.callback import DecafCallback
from decaf_node.training.data import Data, Stream, load_data
from decaf_node.training.evaluate import Evaluation, evaluate
from decaf_node.training.examples import Example, NoneReadable
from decaf_node.training.held_out import Loss, slice_of
from decaf_node.training.host import Evaluator
from decaf_node.training.link import Link
from decaf_node.training.live import LiveAdapter, find_adapter, freeze_a
from decaf_node.training.lora import attach_lora, check_lora
from decaf_node.training.model import check_folder, choose_device, load_base
from decaf_node.training.offline import quiet
from decaf_node.training.private.demands import check as check_private
from decaf_node.training.private.demands import wants_privacy
from decaf_node.training.quantized import check_quantization
from decaf_node.training.tasks.fitting import check as check_fits
from decaf_node.training.tasks.table import load_task
from decaf_node.training.tasks.task import Task


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


class OrTheOneBefore:
    """Collates; where nothing of a batch can be read any more, it is the batch before, so that training goes on.

    (With a privacy budget that would train on what was not drawn.) Raises NoneReadable if the first cannot be read.
    """

    def __init__(self, collate: Callable[[Sequence[Example]], dict[str, Any]]) -> None:
        self._collate = collate
        self._last: dict[str, Any] | None = None

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        try:
            self._last = self._collate(examples)
        except NoneReadable:
            if self._last is None:
                raise
        return dict(self._last)


def assemble(settings: Settings, link: Link | None, welcome: Welcome, scratch: Path) -> Assembled:
    """Load model and data and build the Trainer. Raises DecafError for whatever does not fit.

    What can be checked without loading anything is checked first. link: None where another process has it.
    """
    quiet()
    choose_device(settings.model.device, settings.training.processes)
    if settings.training.threads:
        torch.set_num_threads(settings.training.threads)
    check_fits(settings)
    check_quantization(settings.model)
    check_private(settings)
    check_lora(settings.lora)
    arguments = training_arguments(settings, scratch)
    check_folder(settings.model)
    task = load_task(settings)
    data = load_data(settings, task.source)
    model = attach_lora(load_base(settings.model, settings.mixing.initial_a_seed), settings)
    if settings.round.algorithm == "dlora-fa":
        freeze_a(find_adapter(model))
    task.prepare(model)
    evaluator = _evaluator(task, model, data, arguments.per_device_eval_batch_size)
    callback = partial(DecafCallback, link=link, welcome=welcome, evaluate=evaluator)
    if wants_privacy(settings.privacy):
        trainer = _private_trainer(settings, Path(welcome.account), model, arguments, data.stream, task, callback)
    else:
        scored_by = _held_out(task, model, data, arguments.per_device_eval_batch_size)
        loss = _loss(settings, find_adapter(model), arguments, data.stream)
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=data.stream,
            data_collator=OrTheOneBefore(task.collate),
            callbacks=[callback(stream=data.stream, held_out=scored_by, labels=loss), ForgetHistory()],
            compute_loss_func=loss,
        )
    trainer.remove_callback(PrinterCallback)
    return Assembled(trainer, model, data)


def _loss(settings: Settings, live: LiveAdapter, arguments: TrainingArguments, stream: Stream) -> BalancedLoss | None:
    """Return what a classifier learns by; None: the model's own loss."""
    if not settings.model.classifies or settings.training.balance_labels is False:
        return None
    loss = BalancedLoss(lambda: stream.examples, len(settings.model.labels), arguments.label_smoothing_factor)
    loss.leave_absent_rows(live)
    return loss


def _private_trainer(
    settings: Settings,
    account_path: Path,
    model: Any,
    arguments: TrainingArguments,
    stream: Stream,
    task: Task,
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
        collate=task.collate,
        account=account,
        max_grad_norm=settings.privacy.max_grad_norm,
        causal=task.causal,
        callbacks=[callback(account=account), ForgetHistory()],
    )


def _evaluator(task: Task, model: Any, data: Data, batch: int) -> Evaluator:
    def score(between: Callable[[], None]) -> Evaluation | None:
        return evaluate(model, data.evaluation, task.scorer(), batch, task.ranked, between) if data.evaluation else None

    return score


def _held_out(task: Task, model: Any, data: Data, batch: int) -> Loss | None:
    examples = slice_of(data.evaluation)
    return (lambda: evaluate(model, examples, task.scorer(), batch, ranked=False).loss) if examples else None
