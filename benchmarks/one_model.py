"""One model that the nodes of a benchmark share: who trains or is measured puts its adapter into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from decaf_node.cli.demo.articles import Article
from decaf_node.lowrank.adapter import Adapter
from decaf_node.settings import Settings
from decaf_node.training.arguments import training_arguments
from decaf_node.training.cache import cache_lower_layers
from decaf_node.training.evaluate import Scorer, classify, evaluate
from decaf_node.training.examples import Example, collate, make_encoder
from decaf_node.training.live import LiveAdapter, find_adapter
from decaf_node.training.lora import attach_lora
from decaf_node.training.model import load_base, load_tokenizer

BATCH = 100  # of an evaluation

Loss = Callable[[Any, torch.Tensor], torch.Tensor]  # of what the model puts out, and of the labels


@dataclass(frozen=True)
class Shared:
    """A text classifier, and what all nodes begin with. Nothing is left in it from one mesh to the next."""

    settings: Settings
    model: Any
    live: LiveAdapter
    initial: Adapter
    tokenizer: Any
    scorer: Scorer

    def encode(self, articles: Sequence[Article]) -> list[Example]:
        """Return articles as the model reads them."""
        data = self.settings.data
        rows = [{data.text_column: article.text, data.label_column: article.label} for article in articles]
        return make_encoder(self.settings, self.tokenizer)(rows)

    def accuracy(self, adapter: Adapter, examples: Sequence[Example]) -> float:
        self.live.load(adapter)
        accuracy = evaluate(self.model, examples, self.scorer, BATCH, ranked=True).accuracy
        assert accuracy is not None
        return accuracy


def load_shared(settings: Settings) -> Shared:
    """Load the model. Its lower layers run once an article."""
    tokenizer = load_tokenizer(settings.model)
    model = attach_lora(load_base(settings.model, settings.mixing.initial_a_seed), settings)
    cache_lower_layers(model, settings.data.cache_entries)
    live = find_adapter(model)
    return Shared(settings, model, live, live.read(), tokenizer, classify(tokenizer.pad_token_id, keyed=True))


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
        self._batch = batch or self._arguments.per_device_train_batch_size
        self._parameters = [parameter for parameter in shared.live.named().values() if parameter.requires_grad]
        self._optimizer = optimizer(self._arguments, self._parameters)

    def forget(self) -> None:
        """Begin the optimizer's moments anew."""
        self._optimizer.state.clear()

    def train(self, adapter: Adapter, steps: int) -> Adapter:
        """Return the adapter after so many steps."""
        model, pad = self._shared.model, self._shared.tokenizer.pad_token_id
        self._shared.live.load(adapter)
        model.train()
        for _ in range(steps):
            examples = list(islice(self._examples, self._batch))
            batch = collate(examples, pad, causal=False, keyed=True)
            output = model(**batch)
            loss = self._loss(output, batch["labels"]) if self._loss else output.loss
            loss.backward()
            for tensor in self._shared.live.tensors.values():
                if tensor.grad is not None:
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
