"""A mesh of the demo's classifiers in one process: rounds in lock-step, no daemons, no network.

Every node has its own articles, optimizer, order of the data and books of its neighbours, and all share one model: a
node that trains or scores puts its adapter into it. Training, mixing, weights, clipping and scoring are the project's
own. The graph is full, so every edge proposes ``1 / nodes``, and counts for the smaller weight of its two ends. Two
things are cheaper than in the demo: the last layer alone is adapted, and articles are cut at 32 tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from decaf_node.cli.demo.articles import Article
from decaf_node.cli.demo.recipe import classifier
from decaf_node.lowrank.adapter import (
    Adapter,
    AdapterEdge,
    distance,
    mix_adapters,
    norm,
    plain_distance,
    plain_norm,
)
from decaf_node.mesh.clipping import LEAST, Apart, Clipping
from decaf_node.mesh.edges import LEAST_WEIGHT
from decaf_node.mesh.scoring import Scoring
from decaf_node.mesh.weights import share
from decaf_node.settings import Settings
from decaf_node.training.arguments import training_arguments
from decaf_node.training.cache import cache_lower_layers
from decaf_node.training.data import load_data
from decaf_node.training.evaluate import Scorer, classify, evaluate
from decaf_node.training.examples import Example, collate
from decaf_node.training.held_out import HeldOut, slice_of
from decaf_node.training.live import LiveAdapter, find_adapter
from decaf_node.training.lora import attach_lora
from decaf_node.training.model import load_base, load_tokenizer

HELD_OUT = 0.25  # of a share: what ``score`` tries the neighbours on
LENGTH = 32  # tokens of an article
BATCH = 100  # of an evaluation

Lie = Callable[[Sequence[Adapter]], Adapter]
"""Given what its node has trained, round by round and this one last: what it sends instead."""


@dataclass(frozen=True)
class Shared:
    """The one model, and what all nodes begin with. Nothing is left in it from one mesh to the next."""

    settings: Settings
    model: Any
    live: LiveAdapter
    initial: Adapter
    tokenizer: Any
    scorer: Scorer


@cache
def load(path: Path, labels: tuple[str, ...]) -> Shared:
    """Load the demo's model, with the demo's settings but for what is cheaper. Lower layers run once an article."""
    recipe = classifier(path, iid=False)
    settings = Settings.model_validate(
        {
            "model": recipe.model | {"labels": labels, "device": "cpu"},
            "lora": recipe.lora | {"layers_to_transform": recipe.lora["layers_to_transform"][-1:]},
            "data": recipe.data
            | {"train": ["each-its-own.jsonl"], "evaluation_fraction": HELD_OUT, "max_length": LENGTH},
            "training": {"arguments": recipe.arguments},
            "round": {"steps": recipe.steps},
        }
    )
    tokenizer = load_tokenizer(settings.model)
    model = attach_lora(load_base(settings.model, settings.mixing.initial_a_seed), settings)
    cache_lower_layers(model, settings.data.cache_entries)
    live = find_adapter(model)
    return Shared(settings, model, live, live.read(), tokenizer, classify(tokenizer.pad_token_id, keyed=True))


class Node:
    """A member. lie: it sends this, and believes everybody. mislead: it trains on wrong labels."""

    def __init__(
        self,
        shared: Shared,
        articles: Sequence[Article],
        seed: int,
        folder: Path,
        lie: Lie | None,
        mislead: bool,
    ) -> None:
        settings = shared.settings
        path = write(folder / f"{seed}.jsonl", articles)
        data = settings.data.model_copy(update={"train": (path,)})
        training = settings.training.model_copy(update={"seed": seed})
        loaded = load_data(settings.model_copy(update={"data": data, "training": training}), shared.tokenizer)
        self.adapter = shared.initial
        self.lie = lie
        self.clipping, self.scoring = Clipping(), Scoring()
        self._shared = shared
        self._examples = misled(loaded.stream, len(settings.model.labels)) if mislead else iter(loaded.stream)
        self._arguments = training_arguments(settings, folder)
        self._parameters = [*shared.live.named().values()]
        self._optimizer = optimizer(self._arguments, self._parameters)
        self._past: list[Adapter] = []
        held_out = slice_of(loaded.evaluation)
        shared.live.load(shared.initial)
        self._held_out = HeldOut(
            shared.live, lambda: evaluate(shared.model, held_out, shared.scorer, BATCH, ranked=False).loss
        )

    def train(self) -> Adapter:
        """Take the local steps of a round; return what is sent."""
        model, pad = self._shared.model, self._shared.tokenizer.pad_token_id
        self._shared.live.load(self.adapter)
        model.train()
        for _ in range(self._shared.settings.round.steps):
            examples = list(islice(self._examples, self._arguments.per_device_train_batch_size))
            model(**collate(examples, pad, causal=False, keyed=True)).loss.backward()
            torch.nn.utils.clip_grad_norm_(self._parameters, self._arguments.max_grad_norm)
            self._optimizer.step()
            self._optimizer.zero_grad()
        self.adapter = self._shared.live.read()
        self._past.append(self.adapter)
        return self.adapter if self.lie is None else self.lie(self._past)

    def factor(self, robust: str, peer: str, theirs: Adapter, round: int) -> float:
        """Return how much of its weight an edge counts for, as ``mesh.edges`` does."""
        if robust == "off" or self.lie is not None:
            return 1.0
        ours = self.adapter
        kinds = [
            Apart(distance(theirs, ours), norm(ours)),
            Apart(plain_distance(theirs, ours), plain_norm(ours)),
        ]
        factor = self.clipping.factor(peer, kinds, lone=False, period=round)
        if robust == "score":
            half = mix_adapters(ours, [AdapterEdge(ours, theirs, 0.5)]).adapter
            factor *= self.scoring.factor(peer, self._held_out.harm(str(round), ours, half), round)
        return max(factor, LEAST)

    def accuracy(self, test: Sequence[Example]) -> float:
        self._shared.live.load(self.adapter)
        accuracy = evaluate(self._shared.model, test, self._shared.scorer, BATCH, ranked=True).accuracy
        assert accuracy is not None
        return accuracy


class Mesh:
    """Nodes by name, on a full graph."""

    def __init__(self, nodes: Mapping[str, Node], robust: str, seed: int) -> None:
        self._nodes = nodes
        self._robust = robust
        self._random = Random(seed)
        self._round = 0

    def play(self) -> None:
        """One round: everybody trains, sends, looks at what came, and mixes."""
        self._round += 1
        sent = {name: node.train() for name, node in self._nodes.items()}
        edges: dict[str, list[AdapterEdge]] = {name: [] for name in self._nodes}
        pairs = [*combinations(self._nodes, 2)]
        self._random.shuffle(pairs)
        for pair in pairs:
            weight = self._weigh(*pair, sent)
            if weight >= LEAST_WEIGHT:
                for name, peer in (pair, pair[::-1]):
                    edges[name].append(AdapterEdge(self._nodes[name].adapter, sent[peer], weight))
        for name, node in self._nodes.items():
            node.adapter = mix_adapters(node.adapter, edges[name]).adapter

    def _weigh(self, one: str, other: str, sent: Mapping[str, Adapter]) -> float:
        proposed = share(len(self._nodes) - 1, len(self._nodes) - 1)
        left = min(
            self._nodes[name].factor(self._robust, peer, sent[peer], self._round)
            for name, peer in ((one, other), (other, one))
        )
        if proposed * left >= LEAST_WEIGHT:
            self._nodes[one].clipping.settled(other, left)
            self._nodes[other].clipping.settled(one, left)
        return proposed * left


def misled(examples: Iterable[Example], labels: int) -> Iterator[Example]:
    """Yield the examples, each with the label after its own."""
    return (replace(example, label=(example.label + 1) % labels) for example in examples)


def optimizer(arguments: TrainingArguments, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer that transformers' Trainer would make. Its moments stay with the node."""
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    made: torch.optim.Optimizer = kind(parameters, weight_decay=arguments.weight_decay, **options)
    return made


def examples_of(shared: Shared, articles: Sequence[Article], folder: Path) -> list[Example]:
    """Return articles as the model reads them."""
    path = write(folder / "test.jsonl", articles)
    data = shared.settings.data.model_copy(update={"train": (path,), "evaluation": (path,)})
    return load_data(shared.settings.model_copy(update={"data": data}), shared.tokenizer).evaluation


def write(path: Path, articles: Sequence[Article]) -> Path:
    path.write_text("".join(json.dumps({"text": article.text, "label": article.label}) + "\n" for article in articles))
    return path
