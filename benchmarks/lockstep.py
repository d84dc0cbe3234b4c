"""A mesh of the demo's classifiers in one process: rounds in lock-step, no daemons, no network.

Every node has its own articles, optimizer, order of the data and books of its neighbours, and all share one model: a
node that trains or scores puts its adapter into it. Training, mixing, weights, clipping and scoring are the project's
own. The graph is full, so every edge proposes ``1 / nodes``, and counts for the smaller weight of its two ends. Two
things are cheaper than in the demo: the last layer alone is adapted, and articles are cut at 32 tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from random import Random

from benchmarks.one_model import BATCH, Learner, Shared, load_shared
from decaf_node.cli.demo.articles import Article
from decaf_node.cli.demo.recipe import classifier
from decaf_node.lowrank.adapter import Adapter, distance, norm, plain_distance, plain_norm
from decaf_node.lowrank.mixing import AdapterEdge, mix_adapters
from decaf_node.mesh.clipping import LEAST, Apart, Clipping
from decaf_node.mesh.edges import LEAST_WEIGHT
from decaf_node.mesh.scoring import Scoring
from decaf_node.mesh.weights import share
from decaf_node.settings import Settings
from decaf_node.training.data import load_data
from decaf_node.training.evaluate import evaluate
from decaf_node.training.examples import Example
from decaf_node.training.held_out import HeldOut, slice_of

HELD_OUT = 0.25  # of a share: what ``score`` tries the neighbours on
LENGTH = 32  # tokens of an article

Lie = Callable[[Sequence[Adapter]], Adapter]
"""Given what its node has trained, round by round and this one last: what it sends instead."""


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
    return load_shared(settings)


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
        own = settings.model_copy(update={"data": data, "training": training})
        loaded = load_data(own, shared.task.source)
        self.adapter = shared.initial
        self.lie = lie
        self.clipping, self.scoring = Clipping(), Scoring()
        self._shared = shared
        examples = misled(loaded.stream, len(settings.model.labels)) if mislead else iter(loaded.stream)
        self._learner = Learner(shared, examples)
        self._past: list[Adapter] = []
        held_out = slice_of(loaded.evaluation)
        shared.live.load(shared.initial)
        self._held_out = HeldOut(
            shared.live, lambda: evaluate(shared.model, held_out, shared.task.scorer(), BATCH, ranked=False).loss
        )

    def train(self) -> Adapter:
        """Take the local steps of a round; return what is sent."""
        self.adapter = self._learner.train(self.adapter, self._shared.settings.round.steps)
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
        return self._shared.accuracy(self.adapter, test)


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


def write(path: Path, articles: Sequence[Article]) -> Path:
    path.write_text("".join(json.dumps({"text": article.text, "label": article.label}) + "\n" for article in articles))
    return path
