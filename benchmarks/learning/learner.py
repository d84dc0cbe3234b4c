"""Nodes that learn a task, as a problem of the simulator: the real machine decides who mixes what.

All nodes share one base model (``one_model``); mixing is the kernel's. Only the last layers are adapted, and what the
frozen ones below make of a text or an image is kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from statistics import fmean

import numpy as np
import torch

from benchmarks.learning.methods import WAYS_STAY, Method
from benchmarks.learning.mixes import chebyshev, left_over, plus, size_on, through_file, total, with_drawn_a
from benchmarks.learning.task import Task
from benchmarks.learning.tracking import Tracker, corrected, step_between
from benchmarks.one_model import Learner, Shared
from decaf_node.daemon.said import agreed, mean_parts
from decaf_node.lowrank.adapter import Adapter, distance, medoid, norm
from decaf_node.lowrank.mix import cut
from decaf_node.lowrank.mixing import AdapterEdge, adopt
from decaf_node.settings import Settings
from decaf_node.sim.problem import Measure, Mixed, Term
from decaf_node.training.balance import BalancedLoss
from decaf_node.training.examples import Example
from decaf_node.training.live import LiveAdapter

ROUNDING = 1e-6  # of a product in float32, as ``mix_products`` promises
WAYS_RANKS = 4  # times the adapter's


@dataclass(frozen=True)
class State:
    """What a node holds.

    sent: what others get of it; size: how many examples it has, or its rank, where nodes weigh by that; mixed:
    whether it has mixed since its last step; begun: what it was when its round began; unmixed: what it was after its
    last steps, where these overlap; exchange: of its round, 0 is the first; way: what the next mix adds, where
    momentum or acceleration is due; residual: and what it adds of what was cut before; beside: what of that its base
    weights hold; tracker: where steps are tracked; drift: the mean way of its rounds, where it is gone on with;
    told: what others have got of it last, where differences from that are sent
    """

    node: int
    adapter: Adapter
    sent: Adapter
    size: int = 1
    mixed: bool = False
    begun: Adapter | None = None
    unmixed: Adapter | None = None
    exchange: int = 0
    way: AdapterEdge | None = None
    residual: AdapterEdge | None = None
    beside: Adapter | None = None
    tracker: Tracker | None = None
    drift: Adapter | None = None
    told: Adapter | None = None


@cache
def load(task: Task, rank: int, rate: float, steps: int, dtype: str = "float32") -> Shared:
    sections = task.sections
    settings = Settings.model_validate(
        {
            "model": sections["model"] | {"labels": task.labels, "device": "cpu", "dtype": dtype},
            "lora": sections["lora"] | {"r": rank, "lora_alpha": 2 * rank},
            "data": sections["data"] | {"train": ["each-its-own.jsonl"]},
            "training": {"arguments": sections["arguments"] | {"learning_rate": rate}},
            "round": {"steps": steps},
        }
    )
    return task.load(settings)


class Learning:
    """See ``sim.problem.Problem``.

    models: of each node; those of one rank have one. shares: the examples of each node. rounds: with steps; after these
    the nodes go on mixing. contraction: of the graph, for ``chebyshev``. own_a: each begins with an A of its own.
    """

    def __init__(
        self,
        models: Sequence[Shared],
        shares: Sequence[Sequence[Example]],
        method: Method,
        seed: int,
        rounds: int,
        contraction: float = 0.0,
        own_a: bool = False,
    ) -> None:
        self._models = models
        self._method = method
        self._own_a = own_a
        self._turns = Counter[int]()
        self._last = rounds * method.exchanges
        self._speeds = chebyshev(contraction, method.exchanges) if method.chebyshev else [1.0] * method.exchanges
        counts = [model.live.rank for model in models] if method.by_rank else [len(share) for share in shares]
        self._sizes, self._seed = counts, seed
        for model in models:
            let_train(model.live, a=method.mixing != "b alone")
        losses = losses_of(method, shares, len(models[0].settings.model.labels))
        held = zip(models, shares, losses, strict=True)
        self._learners = [
            Learner(
                model,
                without_end(own, 1000 * seed + node),
                loss=loss,
                still=left_out(method, model, own),
            )
            for node, (model, own, loss) in enumerate(held)
        ]
        self.snapshot_bytes = round(fmean(self._bytes(model) for model in models))
        self.hear: Callable[[State], None] = lambda state: None  # of each mix
        self.tails: list[float] = []
        self.interferences: list[float] = []

    def fresh(self, number: int) -> State:
        initial = self._models[number].initial
        if self._own_a:
            initial = with_drawn_a(initial, 1000 * self._seed + number)
        return State(number, initial, initial, self._sizes[number])

    def train(self, value: State, number: int, random: Random) -> State:
        turn, self._turns[number] = self._turns[number], self._turns[number] + 1
        rounds, exchange = divmod(turn, self._method.exchanges)
        if exchange or turn >= self._last:
            return self._publish(replace(value, exchange=exchange, way=value.way if exchange else None))
        method, learner, model = self._method, self._learners[number], self._models[number]
        if value.mixed and method.moments == "anew":
            learner.forget()
        if method.alternating:
            let_train(model.live, a=rounds % 2 == 1, b=rounds % 2 == 0)
        if method.quasi_global and value.begun is not None:
            value = replace(value, drift=mean_way(value.drift, value.begun, value.adapter))
        start = self._start(value)
        with model.adding(value.beside):
            trained = learner.train(start, model.settings.round.steps)
        if method.overlap and start is not value.adapter:
            trained = method.mix(trained, [AdapterEdge(start, value.adapter, 1.0)]).adapter
        way = None
        if value.begun is not None and method.momentum:
            way = AdapterEdge(value.begun, value.adapter, method.momentum)
        after = replace(value, adapter=trained, mixed=False, begun=value.adapter, exchange=0, way=way)
        after = self._tracked(after) if method.tracking else after
        return self._publish(replace(after, unmixed=after.adapter if method.overlap else None))

    def _tracked(self, value: State) -> State:
        assert value.begun is not None, "what has trained has begun"
        correction = None if value.tracker is None else value.tracker.correction
        adapter = value.adapter if correction is None else corrected(value.adapter, correction)
        step = step_between(value.begun, adapter)
        return replace(value, adapter=adapter, tracker=Tracker(step, step, correction))

    def _start(self, value: State) -> Adapter:
        """Return where the steps of a round begin."""
        if self._method.overlap and value.unmixed is not None:
            return value.unmixed
        if self._method.nesterov and value.begun is not None:
            ahead = AdapterEdge(value.begun, value.adapter, self._method.nesterov)
            return self._method.mix(value.adapter, [ahead]).adapter
        if value.drift is not None:
            ahead = replace(plus(value.drift), weight=self._method.quasi_global)
            return self._method.mix(value.adapter, [ahead]).adapter
        return value.adapter

    def _publish(self, value: State) -> State:
        tracker = value.tracker and replace(value.tracker, sent=self._method.sent(value.tracker.step))
        if self._method.wire == "compact":
            self.snapshot_bytes, sent = through_file(value.adapter)  # of this one
        else:
            sent = self._method.sent(value.adapter, value.told)
        return replace(value, sent=sent, told=sent if self._method.differences else None, tracker=tracker)

    def mix(self, value: State, terms: Sequence[Term]) -> Mixed:
        if not terms:
            return Mixed(replace(value, way=None))
        weigh = self._method.weight
        dues = [(weigh(weight, ours.size, theirs.size), ours, theirs) for weight, ours, theirs in terms]
        edges = [AdapterEdge(ours.sent, theirs.sent, due * self._speed(ours, theirs)) for due, ours, theirs in dues]
        edges += [edge for edge in (value.way, value.residual) if edge is not None]
        mixed = self._method.mix(value.adapter, edges)
        self.tails.append(mixed.tail / max(mixed.norm, 1e-12))
        self.interferences.append(mixed.interference / max(mixed.norm, 1e-12))
        after = self._remembering(value, edges, mixed.adapter)
        if value.tracker is not None:
            after = replace(after, tracker=value.tracker.mixed(edges_of_steps(dues)))
        self.hear(after)
        return Mixed(after, mixed.tail)

    def _speed(self, ours: State, theirs: State) -> float:
        """Both ends agree on it, though they may mix a late edge in different exchanges; else the mean would drift."""
        return self._speeds[min(ours.exchange, theirs.exchange)]

    def _remembering(self, value: State, edges: Sequence[AdapterEdge], mixed: Adapter) -> State:
        """Return the state after the mix, with what the next mix is to add."""
        way, residual, beside = None, value.residual, None
        if self._method.chebyshev and value.exchange + 1 < self._method.exchanges:
            way = AdapterEdge(mixed, value.adapter, 1.0 - self._speeds[value.exchange + 1])
        if self._method.residual:
            kept = left_over(value.adapter, edges, mixed, self._method.residual)
            residual, beside = plus(kept), kept if self._method.in_use else None
        return replace(value, adapter=mixed, sent=mixed, mixed=True, way=way, residual=residual, beside=beside)

    def adopt(self, value: State, candidates: Sequence[State], base: State | None) -> tuple[int, State]:
        chosen = medoid([candidate.adapter for candidate in candidates])
        before = None if base is None else base.adapter
        adopted = adopt(candidates[chosen].adapter, value.adapter, before)
        return chosen, State(value.node, adopted, adopted, value.size)

    def distance(self, one: State, other: State) -> float:
        return distance(one.adapter, other.adapter)

    def norm(self, value: State) -> float:
        return norm(value.adapter)

    def harm(self, own: State, theirs: State, number: int) -> float:
        return 0.0

    def residual(self, before: State, terms: Sequence[Term], after: State) -> float:
        """See ``Problem``: against the dense sum. Not all methods' mixes are meant to be that."""
        if not self._method.plain:
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
        size = size_on(self._method.wire, self._method.sent(model.initial))
        return 2 * size if self._method.tracking else size


def mean_way(ways: Adapter | None, begun: Adapter, after: Adapter) -> Adapter:
    """Return the mean way with that of one more round, at a rank that is hardly reached."""
    last = [(1 - WAYS_STAY, after), (WAYS_STAY - 1, begun)]
    return total(last, WAYS_RANKS) if ways is None else total([(WAYS_STAY, ways), *last])


def edges_of_steps(terms: Sequence[Term]) -> list[AdapterEdge]:
    """Return what is due of the steps that were sent beside adapters. They are not accelerated."""
    return [
        AdapterEdge(ours.tracker.sent, theirs.tracker.sent, weight)
        for weight, ours, theirs in terms
        if ours.tracker is not None and theirs.tracker is not None
    ]


def let_train(live: LiveAdapter, a: bool = True, b: bool = True) -> None:
    """Say which factors train from now on."""
    for layer in live.layers.values():
        layer.a.requires_grad_(a)
        layer.b.requires_grad_(b)


def loss_of(method: Method, examples: Sequence[Example], labels: int) -> BalancedLoss | None:
    """Return what is trained on a node's examples, where it is not the model's own loss."""
    return BalancedLoss(lambda: examples, labels, rare=method.absent) if method.balanced else None


def losses_of(method: Method, shares: Sequence[Sequence[Example]], labels: int) -> list[BalancedLoss | None]:
    """Return what each node learns by."""
    losses = [loss_of(method, own, labels) for own in shares]
    if method.to_mesh or method.to_mean:
        known = [loss for loss in losses if loss is not None]
        told = [loss.own for loss in known]
        mesh = (agreed if method.to_mesh else mean_parts)(told, labels)
        for loss in known:
            loss.weigh(mesh)
    return losses


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
