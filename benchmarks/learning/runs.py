"""One run of the bench: nodes with data of their own, one method, one seed."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch

from benchmarks.learning.learner import Learning, State, let_train, load, loss_of, without_end
from benchmarks.learning.methods import Method, method_of
from benchmarks.learning.mixes import of_one_rank
from benchmarks.learning.splits import Mixtures, by_domain, deal, dirichlet, even, exclusive
from benchmarks.learning.task import VALIDATION, Task
from benchmarks.one_model import Learner, Shared
from benchmarks.topologies import degree, factor, mixing_matrix
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.mixing import AdapterEdge, mix_adapters
from decaf_node.mesh.topology import Graph, graph_of
from decaf_node.sim.plan import Plan
from decaf_node.sim.run import play
from decaf_node.sim.world import World
from decaf_node.training.examples import Example

SLACK = 1.6  # of the virtual time that so many rounds take on average: everyone is to finish them
ROUND_SECONDS = 10.0  # virtual ones
POINTS = 10  # of a curve
LOOKED_AT, ON_A_POINT = 400, 20  # examples that a node is measured on at least, at the end and on the way


@dataclass(frozen=True)
class Setting:
    """One column of cells.

    share: examples of a node; ranks: in turn, as 4/8/16; steps: local steps of a round; still: rounds without steps at
    the end; look: at which part; dtype: of the frozen base, and what its activations are computed in; sizes: how many
    examples nodes have in turn, one to another, as 1/2/4; ``share`` is their mean; in_step: nodes mix all at once, with
    the graph's own weights, and not as the machine does: with what has come, some of it late, and clipped where it is
    far off; own_a: each node begins with an A of its own, not with one that all share; validation: so many examples are
    for that, and not for training.
    """

    task: str
    split: str
    graph: str
    nodes: int
    share: int
    ranks: str
    steps: int
    rounds: int
    still: int
    rate: float
    look: str
    dtype: str = "float32"
    sizes: str = "1"
    in_step: bool = False
    own_a: bool = False
    validation: int = VALIDATION


@dataclass(frozen=True)
class Run:
    """accuracy: mean over the nodes; worst: of them; mean: of their adapters' mean; bytes: sent by a node.

    Each node is measured on its part of the examples (``part_of``), if there are many, the mean adapter on all.

    mean, consensus: of the adapters alone, also where a residual is in use.

    tail, interference: what truncating cuts, and the error that mixing A and B apart makes or would make, in parts of
    the product, means over all mixes; interference is None where ranks differ.
    curve: accuracies after each tenth of the mixes, means over the nodes; each: accuracy of each node.
    """

    setting: Setting
    method: str
    seed: int
    accuracy: float
    worst: float
    mean: float
    consensus: float
    tail: float
    interference: float | None
    bytes: float
    seconds: float
    curve: Sequence[float] = ()
    each: Sequence[float] = ()


class Bench(World):
    """A simulated mesh whose nodes train so many rounds, on a problem of their own."""

    def __init__(self, plan: Plan, seed: int, problem: Learning, rounds: int, exchange: bool) -> None:
        super().__init__(plan, seed)
        self.problem: Learning = problem
        for host in self.hosts:
            host.policy = replace(host.policy, limit=rounds, exchange=exchange)


class Curve:
    """How well nodes do on the way. mixes: of a node, in all."""

    def __init__(self, models: Sequence[Shared], texts: Sequence[Example], mixes: int) -> None:
        self._models = models
        self._texts = texts
        self._mixes = mixes
        self._mixed = Counter[int]()
        self.points: list[list[float]] = [[] for _ in range(POINTS)]

    def hear(self, state: State) -> None:
        before = self._mixed[state.node] * POINTS // self._mixes
        self._mixed[state.node] += 1
        if self._texts and self._mixed[state.node] * POINTS // self._mixes > before:
            texts = part_of(self._texts, state.node, len(self._models), least=ON_A_POINT)
            self.points[before].append(accuracy_of(state, self._models[state.node], texts))


def accuracy_of(state: State, model: Shared, texts: Sequence[Example]) -> float:
    with model.adding(state.beside):
        return model.accuracy(state.adapter, texts)


def part_of(examples: Sequence[Example], node: int, nodes: int, least: int = LOOKED_AT) -> Sequence[Example]:
    """Return what the node is measured on: so many examples at least, and each is looked at by two nodes or more."""
    parts = max(1, min(nodes // 2, len(examples) // least))
    return examples[node % parts :: parts]


def mixtures(setting: Setting, task: Task, random: np.random.Generator) -> Mixtures:
    """Return what each node is to hold: ``iid``, ``dirichlet-ALPHA``, ``exclusive-LABELS`` or ``domain``."""
    counts = [sum(one.label == label for one in task.train) for label in task.labels]
    kind, _, number = setting.split.partition("-")
    if kind == "dirichlet":
        return dirichlet(counts, setting.nodes, float(number), random)
    if kind == "exclusive":
        return exclusive(len(task.labels), setting.nodes, int(number))
    if kind == "domain":
        return by_domain(task.labels, setting.nodes)
    if kind != "iid":
        raise ValueError(f"{setting.split} is no way to deal examples")
    return even(counts, setting.nodes)


def shares_of(setting: Setting, seed: int, shared: Shared, task: Task) -> list[list[Example]]:
    """Return what each node holds."""
    random = np.random.default_rng(seed)
    labels = [task.labels.index(one.label) for one in task.train]
    held = deal(labels, sizes_of(setting), mixtures(setting, task, random), random)
    return [shared.encode([task.train[index] for index in share]) for share in held]


def sizes_of(setting: Setting) -> list[int]:
    """Return how many examples each node is to hold."""
    parts = [int(part) for part in setting.sizes.split("/")]
    own = [parts[node % len(parts)] for node in range(setting.nodes)]
    return [round(setting.share * setting.nodes * part / sum(own)) for part in own]


def mesh_of(setting: Setting, method: str, seed: int, models: Sequence[Shared], task: Task) -> Bench:
    """Return the mesh, not begun yet."""
    chosen = method_of(method)
    mixes = setting.rounds * chosen.exchanges + setting.still
    plan = Plan(setting.nodes, setting.graph, round(SLACK * mixes) + 3, round_seconds=ROUND_SECONDS, overlap=False)
    contraction = factor(graph_of(plan.topology, plan.names))
    problem = Learning(
        models, shares_of(setting, seed, models[0], task), chosen, seed, setting.rounds, contraction, setting.own_a
    )
    return Bench(plan, seed, problem, mixes, chosen.mixing != "local")


def finish(world: Bench) -> list[State]:
    """Play the mesh to its end; return what its nodes hold then."""
    outcome = play(world.plan, world.seed, lambda _, __: world)
    assert outcome.finding is None, outcome.finding.message
    rounds = {host.completed for host in world.hosts}
    assert len(rounds) == 1, rounds
    return [host.trainer.value for host in world.hosts]


def finish_in_step(problem: Learning, graph: Graph, mixes: int) -> list[State]:
    """Let all nodes train and mix at the same moments, without machine and network; return what they hold at last."""
    states = [problem.fresh(node) for node in range(len(graph.members))]
    for turn in range(mixes):
        matrix = mixing_matrix(graph, turn)
        states = [problem.train(state, node, Random()) for node, state in enumerate(states)]
        terms = [
            [(float(row[peer]), states[node], states[peer]) for peer in np.flatnonzero(row) if peer != node]
            for node, row in enumerate(matrix)
        ]
        states = [problem.mix(state, own).value for state, own in zip(states, terms, strict=True)]
    return states


def played(world: Bench, setting: Setting, method: Method, mixes: int) -> tuple[list[State], float]:
    """Return what the nodes hold at last, and the bytes that each has sent."""
    if method.server or (setting.in_step and method.mixing != "local"):
        graph = graph_of("full" if method.server else setting.graph, world.plan.names)
        each = 1.0 if method.server else degree(graph)  # snapshots in a mix
        return finish_in_step(world.problem, graph, mixes), each * mixes * world.problem.snapshot_bytes
    return finish(world), world.network.bytes / setting.nodes


def models_of(setting: Setting, task: Task) -> list[Shared]:
    """Return the model of each node; those of one rank share it."""
    ranks = map(int, setting.ranks.split("/"))
    kinds = [load(task, rank, setting.rate, setting.steps, setting.dtype) for rank in ranks]
    return [kinds[node % len(kinds)] for node in range(setting.nodes)]


def try_out(setting: Setting, method: str, seed: int, models: Sequence[Shared], task: Task) -> Run:
    """models: of each node."""
    started = time.process_time()
    highest = max(range(setting.nodes), key=lambda node: models[node].live.rank)
    shared = models[highest]
    texts = shared.encode(task.test if setting.look == "test" else task.validation)
    torch.manual_seed(seed)
    if method_of(method).mixing == "centralized":
        adapter = in_one_place(setting, method_of(method), seed, shared, task)
        accuracy = shared.accuracy(adapter, texts)
        return Run(
            setting, method, seed, accuracy, accuracy, accuracy, 0.0, 0.0, 0.0, 0.0, time.process_time() - started
        )
    world = mesh_of(setting, method, seed, models, task)
    mixes = setting.rounds * method_of(method).exchanges + setting.still
    curve = Curve(models, texts[: task.on_the_way], mixes)
    world.problem.hear = curve.hear
    states, sent = played(world, setting, method_of(method), mixes)
    tails, apart = world.problem.tails, world.problem.interferences
    parts = [part_of(texts, state.node, len(states)) for state in states]
    each = [accuracy_of(state, model, part) for model, state, part in zip(models, states, parts, strict=True)]
    adapters = [state.adapter for state in states]
    return Run(
        setting,
        method,
        seed,
        accuracy=statistics.fmean(each),
        worst=min(each),
        mean=shared.accuracy(mean_of(adapters, adapters[highest]), texts),
        consensus=world.problem.measure(states).consensus,
        tail=statistics.fmean(tails) if tails else 0.0,
        interference=None if "/" in setting.ranks else statistics.fmean(apart) if apart else 0.0,
        bytes=sent,
        seconds=time.process_time() - started,
        curve=[statistics.fmean(point) for point in curve.points if point],
        each=each,
    )


def in_one_place(setting: Setting, method: Method, seed: int, shared: Shared, task: Task) -> Adapter:
    """Return what is learned of all data together, in as many steps, each of all nodes' examples."""
    let_train(shared.live)  # dlora-fa may have come before
    everything = [example for share in shares_of(setting, seed, shared, task) for example in share]
    batch = setting.nodes * shared.settings.training.arguments["per_device_train_batch_size"]
    learner = Learner(shared, without_end(everything, seed), batch, loss_of(method, everything, len(task.labels)))
    return learner.train(shared.initial, setting.rounds * setting.steps)


def mean_of(adapters: Sequence[Adapter], first: Adapter) -> Adapter:
    """Return the best adapter for the mean of the products, of the rank of ``first``: one of them, of the highest."""
    edges = [AdapterEdge(first, other, 1 / len(adapters)) for other in adapters]
    return mix_adapters(first, [of_one_rank(edge) for edge in edges]).adapter
