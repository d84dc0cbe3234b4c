"""One model that the nodes of a benchmark share: who trains or is measured puts its adapter into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from decaf_node.cli.demo.articles import Article
from decaf_node.cli.demo.recipe import prompt
from decaf_node.lowrank.adapter import Adapter
from decaf_node.settings import Settings
from decaf_node.training.arguments import training_arguments
from decaf_node.training.evaluate import evaluate
from decaf_node.training.examples import Example, make_encoder
from decaf_node.training.live import LiveAdapter, find_adapter
from decaf_node.training.lora import attach_lora, lora_layers
from decaf_node.training.model import load_base, load_tokenizer
from decaf_node.training.tasks.table import load_task
from decaf_node.training.tasks.task import Task

BATCH = 100  # of an evaluation

Loss = Callable[[Any, Tensor], Tensor]  # of what the model puts out, and of the labels


@dataclass(frozen=True)
class Shared:
    """A model, and what all nodes begin with. Nothing is left in it from one mesh to the next.

    task: the product's, which makes batches and scores; encode: returns what has labels as the model reads it
    """

    settings: Settings
    model: Any
    live: LiveAdapter
    initial: Adapter
    task: Task
    encode: Callable[[Sequence[Any]], list[Example]]

    @contextmanager
    def adding(self, part: Adapter | None) -> Iterator[None]:
        """Let the base weights hold these products too, while in here."""
        layers: dict[str, Any] = dict(lora_layers(self.model))
        kept: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, product in part.products.items() if part else ():
                weight = layers[name].get_base_layer().weight
                if weight.dtype != torch.float32:
                    raise ValueError("The base must be in float32: added to it in less, a small product is lost.")
                kept[name] = weight.clone()
                weight += product.dense()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, before in kept.items():
                    layers[name].get_base_layer().weight.copy_(before)

    def accuracy(self, adapter: Adapter, examples: Sequence[Example]) -> float:
        self.live.load(adapter)
        accuracy = evaluate(self.model, examples, self.task.scorer(), BATCH, ranked=True).accuracy
        assert accuracy is not None
        return accuracy


def load_shared(settings: Settings) -> Shared:
    """Load a model of texts: a classifier, or a language model that answers with the label's word.

    Where the settings say so, its lower layers run once a text.
    """
    task = load_task(settings)
    model = attach_lora(load_base(settings.model, settings.mixing.initial_a_seed), settings)
    task.prepare(model)
    encode, live = make_encoder(settings, load_tokenizer(settings.model)), find_adapter(model)
    return Shared(settings, model, live, live.read(), task, lambda articles: encode(rows_of(settings, articles)))


def rows_of(settings: Settings, articles: Sequence[Article]) -> list[dict[str, str]]:
    """Return articles as rows of the data files that the settings speak of."""
    data, labels = settings.data, settings.model.labels
    if data.prompt_column:
        asked = [(prompt(article.text, labels), article.label) for article in articles]
        return [{data.prompt_column: question, data.text_column: label} for question, label in asked]
    return [{data.text_column: article.text, data.label_column: article.label} for article in articles]


class Learner:
    """A node's examples, and its optimizer, whose moments stay with the node.

    batch: of a step; 0: by the settings. loss: None: the model's own. still: labels whose rows of the head are left to
    the others
    """

    def __init__(
        self,
        shared: Shared,
        examples: Iterator[Example],
        batch: int = 0,
        loss: Loss | None = None,
        still: Sequence[int] = (),
    ) -> None:
        self._shared = shared
        self._examples = examples
        self._arguments = training_arguments(shared.settings, Path("unused"))
        self._loss = loss
        self._still = list(still)
        self._labels = len(shared.settings.model.labels)
        self._batch = batch or self._arguments.per_device_train_batch_size
        self._parameters = [parameter for parameter in shared.live.named().values() if parameter.requires_grad]
        self._optimizer = optimizer(self._arguments, self._parameters)

    def forget(self) -> None:
        """Begin the optimizer's moments anew."""
        self._optimizer.state.clear()

    def train(self, adapter: Adapter, steps: int) -> Adapter:
        """Return the adapter after so many steps."""
        model = self._shared.model
        self._shared.live.load(adapter)
        model.train()
        for _ in range(steps):
            examples = list(islice(self._examples, self._batch))
            batch = self._shared.task.collate(examples)
            output = model(**batch)
            loss = self._loss(output, batch["labels"]) if self._loss else output.loss
            loss.backward()
            for tensor in self._shared.live.tensors.values():
                if tensor.grad is not None and tensor.shape[:1] == (self._labels,):
                    tensor.grad[self._still] = 0.0
            torch.nn.utils.clip_grad_norm_(self._parameters, self._arguments.max_grad_norm)
            self._optimizer.step()
            self._optimizer.zero_grad()
        return self._shared.live.read()


def optimizer(arguments: TrainingArguments, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer that transformers' Trainer would make."""
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    made: torch.optim.Optimizer = kind(parameters, weight_decay=arguments.weight_decay, **options)
    return made
