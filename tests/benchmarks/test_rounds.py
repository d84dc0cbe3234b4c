"""Rounds of the learning bench, in lock-step on a ring, beside dense matrices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.learning import learner
from benchmarks.learning.learner import Learning, State
from benchmarks.learning.methods import WAYS_STAY, method_of
from benchmarks.learning.mixes import total, with_drawn_a
from benchmarks.learning.runs import Setting, finish_in_step, part_of, sizes_of
from benchmarks.topologies import factor, mixing_matrix
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.product import Product
from decaf_node.mesh.topology import graph_of

EXAMPLES = (10, 30, 20, 40, 10)
NODES, ROUNDS = len(EXAMPLES), 3
RING = graph_of("ring", [f"n{number}" for number in range(NODES)])
MATRIX = torch.from_numpy(mixing_matrix(RING, 0))

Round = tuple[list[State], list[State]]
Play = Callable[[str, int], list[Round]]
"""Given a method and the rank of all adapters: what nodes hold before and after each mix."""


def drawn(rank: int, head: float) -> Adapter:
    b, a = torch.randn(7, rank, dtype=torch.float64), torch.randn(rank, 4, dtype=torch.float64)
    return Adapter({"layer": Product(b, a, 2.0)}, {"head": torch.full((2,), head, dtype=torch.float64)})


torch.manual_seed(0)
INITIAL = {rank: drawn(rank, 0.0) for rank in (1, 4)}
TARGETS = [drawn(4, float(node)) for node in range(NODES)]


def dense(adapters: Sequence[Adapter]) -> Tensor:
    """Return products and heads as one row a node."""
    return torch.stack([torch.cat([one.products["layer"].dense().flatten(), one.tensors["head"]]) for one in adapters])


def adapters_of(states: Sequence[State]) -> Tensor:
    return dense([state.adapter for state in states])


START, WANTED = dense([INITIAL[4]] * NODES), dense(TARGETS)


class HalfWay:
    """A learner that goes half of the way to a target, so that it matters where it begins.

    trained: whether A and whether B was to be trained, step by step
    """

    def __init__(self, model: Any, target: Adapter) -> None:
        self._layer = model.live.layers["layer"]
        self._target = target
        self.trained: list[tuple[bool, bool]] = []

    def train(self, adapter: Adapter, steps: int) -> Adapter:
        self.trained.append((self._layer.a.requires_grad, self._layer.b.requires_grad))
        return total([(0.5, adapter), (0.5, self._target)])


@pytest.fixture
def learners(monkeypatch: pytest.MonkeyPatch) -> list[HalfWay]:
    """Return the learners of all nodes, as they are made."""
    made: list[HalfWay] = []

    def make(model: Any, *_: Any, **__: Any) -> HalfWay:
        made.append(HalfWay(model, TARGETS[len(made) % NODES]))
        return made[-1]

    monkeypatch.setattr(learner, "Learner", make)
    return made


ADDED: list[Adapter | None] = []  # to the base weights, at each node's steps


@contextmanager
def adding(part: Adapter | None) -> Iterator[None]:
    ADDED.append(part)
    yield


def nodes_of(name: str, rank: int) -> Learning:
    layer = SimpleNamespace(a=torch.nn.Parameter(torch.zeros(1)), b=torch.nn.Parameter(torch.zeros(1)))
    live = SimpleNamespace(layers={"layer": layer})
    settings = SimpleNamespace(round=SimpleNamespace(steps=1), model=SimpleNamespace(labels=["one"]))
    model: Any = SimpleNamespace(initial=INITIAL[rank], live=live, settings=settings, adding=adding)
    shares: Any = [[SimpleNamespace(label=0)] * examples for examples in EXAMPLES]
    return Learning([model] * NODES, shares, method_of(name), 0, ROUNDS, factor(RING))


@pytest.fixture
def play(learners: list[HalfWay]) -> Play:
    def played(name: str, rank: int) -> list[Round]:
        nodes = nodes_of(name, rank)
        rounds, states = [], [nodes.fresh(node) for node in range(NODES)]
        for _ in range(ROUNDS * method_of(name).exchanges):
            trained = [nodes.train(state, node, Random(0)) for node, state in enumerate(states)]
            states = [nodes.mix(one, terms(node, trained)).value for node, one in enumerate(trained)]
            rounds.append((trained, states))
        return rounds

    return played


def terms(node: int, states: Sequence[State]) -> list[tuple[float, State, State]]:
    return [
        (float(MATRIX[node, peer]), states[node], states[peer]) for peer in ((node - 1) % NODES, (node + 1) % NODES)
    ]


@pytest.mark.parametrize("exchanges", [1, 3])
def test_exchanges_are_powers_of_the_mixing_matrix(play: Play, exchanges: int) -> None:
    x, matrix = START, torch.linalg.matrix_power(MATRIX, exchanges)
    for _ in range(ROUNDS):
        x = matrix @ (x + WANTED) / 2
    assert torch.allclose(adapters_of(play(f"decaf, {exchanges} exchanges", 4)[-1][1]), x)


def test_chebyshevs_polynomial_begins_anew_each_round(play: Play) -> None:
    x, scaled, reach = START, MATRIX / factor(RING), 1 / factor(RING)
    polynomial = (4 * scaled @ scaled @ scaled - 3 * scaled) / (4 * reach**3 - 3 * reach)
    for _ in range(ROUNDS):
        x = polynomial @ (x + WANTED) / 2
    assert torch.allclose(adapters_of(play("decaf, 3 exchanges, chebyshev", 4)[-1][1]), x)


@pytest.mark.parametrize("exchanges", [1, 2])
def test_gradient_tracking(play: Play, exchanges: int) -> None:
    x, matrix = START, torch.linalg.matrix_power(MATRIX, exchanges)
    mean_step, last = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(ROUNDS):
        own = (WANTED - x) / 2
        step, last = mean_step + own - last, own
        x, mean_step = matrix @ (x + step), matrix @ step
    assert torch.allclose(adapters_of(play(f"decaf, tracking, {exchanges} exchanges", 4)[-1][1]), x)


def test_momentum_is_added_to_the_mix_and_nesterovs_before_the_steps(play: Play) -> None:
    x = before = START
    for _ in range(ROUNDS):
        x, before = MATRIX @ (x + WANTED) / 2 + 0.3 * (x - before), x
    assert torch.allclose(adapters_of(play("decaf, momentum 0.3", 4)[-1][1]), x)
    x = before = START
    for _ in range(ROUNDS):
        x, before = MATRIX @ (x + 0.3 * (x - before) + WANTED) / 2, x
    assert torch.allclose(adapters_of(play("decaf, nesterov 0.3", 4)[-1][1]), x)


def test_quasi_global_goes_on_by_the_mean_way(play: Play) -> None:
    x = before = START
    way = torch.zeros_like(x)
    for _ in range(ROUNDS):
        way = WAYS_STAY * way + (1 - WAYS_STAY) * (x - before)
        x, before = MATRIX @ (x + 0.7 * way + WANTED) / 2, x
    assert torch.allclose(adapters_of(play("decaf, quasi-global 0.7", 4)[-1][1]), x)


def test_overlapping_steps_begin_from_what_was_sent(play: Play) -> None:
    x = sent = START
    for _ in range(ROUNDS):
        sent = x + (WANTED - sent) / 2
        x = MATRIX @ sent
    assert torch.allclose(adapters_of(play("decaf, overlap", 4)[-1][1]), x)


def test_by_size_the_mean_weighed_by_examples_stays(play: Play) -> None:
    parts = torch.tensor(EXAMPLES, dtype=torch.float64) / sum(EXAMPLES)
    for trained, mixed in play("decaf, by size", 4):
        assert torch.allclose(parts @ adapters_of(mixed), parts @ adapters_of(trained))
    trained, mixed = play("decaf", 4)[0]
    assert not torch.allclose(parts @ adapters_of(mixed), parts @ adapters_of(trained))


def residuals(states: Sequence[State]) -> Tensor:
    return dense([state.residual.theirs for state in states if state.residual is not None])


def test_nothing_is_lost_where_all_that_is_cut_is_kept(play: Play) -> None:
    before = torch.zeros(1, 30, dtype=torch.float64)
    for trained, mixed in play("decaf, residual 3", 1):
        kept = residuals(mixed)
        assert kept.norm() > 0.1
        assert torch.allclose((adapters_of(mixed) + kept).mean(0), (adapters_of(trained) + before).mean(0))
        before = kept
    trained, mixed = play("decaf", 1)[0]
    assert not torch.allclose(adapters_of(mixed).mean(0), adapters_of(trained).mean(0))


def test_a_residual_in_use_makes_the_model_the_mix_before_the_cut(play: Play) -> None:
    ADDED.clear()
    rounds = play("decaf, residual 3, in use", 1)
    for (trained, mixed), added in zip(rounds, (ADDED[NODES * turn :][:NODES] for turn in (1, 2)), strict=False):
        assert [one.beside for one in mixed] == added
        assert ADDED[:NODES] == [None] * NODES
        before = [one.residual for one in trained]
        whole = MATRIX @ adapters_of(trained) + (0.0 if before[0] is None else residuals(trained))
        assert torch.allclose(adapters_of(mixed) + residuals(mixed), whole)
    assert [one.beside for one in play("decaf, residual 3", 1)[-1][1]] == [None] * NODES


def test_by_rank_who_can_hold_more_weighs_more() -> None:
    method = method_of("decaf, by rank")
    assert (method.weight(0.3, 4, 16), method.weight(0.3, 16, 4)) == (0.3, 0.075)
    assert not method.plain


def test_a_drawn_a_is_as_pefts(learners: list[HalfWay]) -> None:
    one, other = (with_drawn_a(INITIAL[4], seed).products["layer"] for seed in (0, 1))
    assert one.a.abs().max() <= one.shape[1] ** -0.5 < 1.3 * one.a.abs().max()
    assert not torch.equal(one.a, other.a)
    assert torch.equal(one.b, INITIAL[4].products["layer"].b)
    assert torch.equal(one.a, with_drawn_a(INITIAL[4], 0).products["layer"].a)


def test_b_and_a_alternate_and_b_begins(play: Play, learners: list[HalfWay]) -> None:
    play("dlora, alternating, 2 exchanges", 4)
    assert [one.trained for one in learners] == [[(False, True), (True, False), (False, True)]] * NODES


@pytest.mark.parametrize("name", ["fedavg", "fedavg of products"])
def test_at_a_server_all_take_the_exact_mean(learners: list[HalfWay], name: str) -> None:
    nodes = nodes_of(name, 4)
    states = finish_in_step(nodes, graph_of("full", RING.members), 1)
    trained = [one.train(INITIAL[4], 1) for one in learners]
    exact = dense(trained).mean(0)
    if name == "fedavg":
        b, a = (torch.stack([getattr(one.products["layer"], side) for one in trained]).mean(0) for side in "ba")
        exact[:-2] = 2.0 * (b @ a).flatten()
    assert torch.allclose(adapters_of(states), exact.expand(NODES, -1))


def test_in_step_the_machine_is_left_out(play: Play) -> None:
    states = finish_in_step(nodes_of("decaf, tracking, 2 exchanges, chebyshev", 4), RING, 2 * ROUNDS)
    assert torch.allclose(adapters_of(states), adapters_of(play("decaf, tracking, 2 exchanges, chebyshev", 4)[-1][1]))


def test_who_tracks_sends_twice_as_much(learners: list[HalfWay]) -> None:
    assert nodes_of("decaf, tracking", 4).snapshot_bytes == 2 * nodes_of("decaf", 4).snapshot_bytes


def test_shares_are_even_or_go_round_in_parts() -> None:
    even = Setting("bbc", "iid", "ring", 5, 30, "8", 3, 40, 0, 5e-3, "validation")
    assert sizes_of(even) == [30] * 5
    assert sizes_of(replace(even, sizes="1/2")) == [21, 43, 21, 43, 21]


@pytest.mark.parametrize(("nodes", "least", "times"), [(2, 5, 2), (4, 5, 2), (10, 5, 3), (10, 12, 10), (10, 30, 10)])
def test_two_nodes_or_more_look_at_each_example(nodes: int, least: int, times: int) -> None:
    examples: Any = list(range(23))
    parts = [part_of(examples, node, nodes, least) for node in range(nodes)]
    seen = Counter(one for part in parts for one in part)
    assert seen.keys() == set(examples)
    assert times - 1 <= min(seen.values()) <= max(seen.values()) <= times
    assert all(len(part) >= min(least, 23) for part in parts)
