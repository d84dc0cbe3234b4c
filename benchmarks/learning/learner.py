"""Nodes that learn to tell texts apart, as a problem of the simulator: the real machine decides who mixes what.

All nodes share one base model (``one_model``); mixing is the kernel's. Only the last two layers are adapted, and what
the frozen ones below make of a text is kept (``model.cache_lower_layers``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from statistics import fmean

import numpy as np
import torch

from benchmarks.learning.methods import Method
from benchmarks.one_model import Learner, Loss, Shared, load_shared
from decaf_node.cli.demo.recipe import classifier
from decaf_node.lowrank.adapter import Adapter, distance, medoid, norm
from decaf_node.lowrank.codec import size_of
from decaf_node.lowrank.mix import cut
from decaf_node.lowrank.mixing import AdapterEdge, adopt
from decaf_node.settings import Settings
from decaf_node.sim.problem import Measure, Mixed, Term
from decaf_node.training.balance import BalancedLoss
from decaf_node.training.examples import Example
from decaf_node.training.live import freeze_a

ROUNDING = 1e-6  # of a product in float32, as ``mix_products`` promises
DIGEST = "0" * 64


@dataclass(frozen=True)
class State:
    """What a node holds.

    sent: what others get of it; mixed: whether it has mixed since its last step; begun: what it was when its round
    began; way: from there in the round before, where momentum is due
    """

    node: int
    adapter: Adapter
    sent: Adapter
    mixed: bool = False
    begun: Adapter | None = None
    way: AdapterEdge | None = None


@cache
def load(path: Path, labels: tuple[str, ...], rank: int, rate: float, steps: int, dtype: str = "float32") -> Shared:
    recipe = classifier(path, iid=False)
    settings = Settings.model_validate(
        {
            "model": recipe.model | {"labels": labels, "device": "cpu", "dtype": dtype},
            "lora": recipe.lora | {"r": rank, "lora_alpha": 2 * rank},
            "data": recipe.data | {"train": ["each-its-own.jsonl"]},
            "training": {"arguments": recipe.arguments | {"learning_rate": rate}},
            "round": {"steps": steps},
        }
    )
    return load_shared(settings)


class Learning:
    """See ``sim.problem.Problem``.

    models: of each node; those of one rank have one. shares: the examples of each node. rounds: with steps; after these
    the nodes go on mixing.
    """

    def __init__(
        self, models: Sequence[Shared], shares: Sequence[Sequence[Example]], method: Method, seed: int, rounds: int
    ) -> None:
        self._models = models
        self._method = method
        self._turns = Counter[int]()
        self._last = rounds * method.exchanges
        for model in models:
            for layer in model.live.layers.values():
                layer.a.requires_grad_(True)
            if method.mixing == "b alone":
                freeze_a(model.live)
        held = zip(models, shares, strict=True)
        self._learners = [
            Learner(
                model,
                without_end(own, 1000 * seed + node),
                loss=loss_of(method, own),
                still=left_out(method, model, own),
            )
            for node, (model, own) in enumerate(held)
        ]
        self.snapshot_bytes = round(fmean(self._bytes(model) for model in models))
        self.hear: Callable[[State], None] = lambda state: None  # of each mix
        self.tails: list[float] = []
        self.interferences: list[float] = []

    def fresh(self, number: int) -> State:
        initial = self._models[number].initial
        return State(number, initial, initial)

    def train(self, value: State, number: int, random: Random) -> State:
        turn, self._turns[number] = self._turns[number], self._turns[number] + 1
        if turn % self._method.exchanges or turn >= self._last:
            return replace(value, sent=self._method.sent(value.adapter), way=None)
        if value.mixed and self._method.moments == "anew":
            self._learners[number].forget()
        adapter = self._learners[number].train(value.adapter, self._models[number].settings.round.steps)
        way = None
        if value.begun is not None and self._method.momentum:
            way = AdapterEdge(value.begun, value.adapter, self._method.momentum)
        return State(number, adapter, self._method.sent(adapter), begun=value.adapter, way=way)

    def mix(self, value: State, terms: Sequence[Term]) -> Mixed:
        edges = [AdapterEdge(ours.sent, theirs.sent, weight) for weight, ours, theirs in terms]
        if not edges:
            return Mixed(value)
        if value.way is not None:
            edges.append(value.way)
        mixed = self._method.mix(value.adapter, edges)
        self.tails.append(mixed.tail / max(mixed.norm, 1e-12))
        self.interferences.append(mixed.interference / max(mixed.norm, 1e-12))
        after = State(value.node, mixed.adapter, mixed.adapter, mixed=True, begun=value.begun)
        self.hear(after)
        return Mixed(after, mixed.tail)

    def adopt(self, value: State, candidates: Sequence[State], base: State | None) -> tuple[int, State]:
        chosen = medoid([candidate.adapter for candidate in candidates])
        before = None if base is None else base.adapter
        adopted = adopt(candidates[chosen].adapter, value.adapter, before)
        return chosen, State(value.node, adopted, adopted)

    def distance(self, one: State, other: State) -> float:
        return distance(one.adapter, other.adapter)

    def norm(self, value: State) -> float:
        return norm(value.adapter)

    def harm(self, own: State, theirs: State, number: int) -> float:
        return 0.0

    def residual(self, before: State, terms: Sequence[Term], after: State) -> float:
        """See ``Problem``: against the dense sum. A mix of factors, or with momentum, is not meant to be that."""
        if self._method.mixing != "products" or self._method.momentum:
            return 0.0
        squares = 0.0
        for name, product in before.adapter.products.items():
            exact = product.dense()
            for weight, ours, theirs in terms:
                own, other = ours.sent.products[name], theirs.sent.products[name]
                if not self._method.whole:
                    own, other = cut(own, other.rank), cut(other, own.rank)
                exact = exact + weight * (other.dense() - own.dense())
            squares += float((exact - after.adapter.products[name].dense()).square().sum())
        return max(0.0, math.sqrt(squares) - ROUNDING * norm(after.adapter))

    def measure(self, values: Sequence[State]) -> Measure:
        """See ``Problem``: consensus only; the rest costs too much to be measured once a round."""
        squares, total = 0.0, 0.0
        for name in self._models[0].live.layers:
            dense = torch.stack([value.adapter.products[name].dense() for value in values])
            mean = dense.mean(0)
            squares += float((dense - mean).square().sum((1, 2)).mean())
            total += float(mean.square().sum())
        return Measure(math.sqrt(squares), math.nan, math.sqrt(total))

    def _bytes(self, model: Shared) -> int:
        dtype = getattr(torch, self._method.wire)
        return size_of(model.initial, dtype=dtype, schema=DIGEST, base=DIGEST, round=1)


def loss_of(method: Method, examples: Sequence[Example]) -> Loss | None:
    """Return what is trained on a node's examples, where it is not the model's own loss."""
    return BalancedLoss(lambda: examples, rare=method.absent) if method.balanced else None


def left_out(method: Method, model: Shared, examples: Sequence[Example]) -> list[int]:
    """Return the labels whose rows of the head the node does not train."""
    labels = len(model.settings.model.labels) if method.own_rows else 0
    return sorted({*range(labels)} - {example.label for example in examples})


def without_end(examples: Sequence[Example], seed: int) -> Iterator[Example]:
    epoch = 0
    while True:
        for index in np.random.default_rng((seed, epoch)).permutation(len(examples)):
            yield examples[index]
        epoch += 1
