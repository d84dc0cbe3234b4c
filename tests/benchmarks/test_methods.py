"""Methods that the learning bench has beside the product's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch

from benchmarks.learning.learner import losses_of
from benchmarks.learning.methods import Method, method_of
from benchmarks.learning.mixes import chebyshev, left_over, plus, size_on, total, with_near_a
from benchmarks.learning.tracking import Tracker, corrected, step_between
from benchmarks.topologies import factor, mixing_matrix
from decaf_node.daemon.said import agreed
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.mix import cut
from decaf_node.lowrank.mixing import AdapterEdge, mix_adapters
from decaf_node.lowrank.product import Product
from decaf_node.mesh.topology import graph_of

RING = graph_of("ring", [f"n{number}" for number in range(6)])


def adapter(b: torch.Tensor, a: torch.Tensor) -> Adapter:
    return Adapter({"layer": Product(b, a, 2.0)}, {"head": torch.ones(2)})


def test_near_a_keeps_the_product_and_brings_a_nearer() -> None:
    torch.manual_seed(0)
    old_a, b = torch.randn(4, 20), torch.randn(12, 4)
    turned = torch.randn(4, 4) @ (old_a + 0.1 * torch.randn(4, 20))  # the same rows, but for a little, in another basis
    mixed = adapter(b, turned)
    near = with_near_a(mixed, adapter(torch.zeros(12, 4), old_a))
    before, after = mixed.products["layer"], near.products["layer"]
    assert torch.allclose(after.dense(), before.dense(), atol=1e-4)
    assert (after.a - old_a).norm() < 0.15 * old_a.norm() < (before.a - old_a).norm()
    assert near.tensors is mixed.tensors


def test_where_the_rows_have_nothing_in_common_it_stays() -> None:
    eye = torch.eye(6)
    mixed = adapter(torch.randn(5, 2), eye[:2])
    assert with_near_a(mixed, adapter(torch.zeros(5, 2), eye[2:4])).products["layer"] is mixed.products["layer"]


def test_what_is_sent_is_off_by_half_a_step_of_its_direction_at_most() -> None:
    b, head = torch.randn(7, 3) * torch.tensor([1.0, 1e-3, 0.0]), torch.randn(4, 6)
    own = Adapter({"layer": Product(b, torch.randn(3, 5), 2.0)}, {"head": head})
    assert Method("products").sent(own) is own
    sent = Method("products", wire="int8").sent(own)
    assert ((sent.products["layer"].b - b).abs() <= 0.51 * b.abs().amax(0) / 127).all()
    assert sent.products["layer"].scale == 2.0
    assert ((sent.tensors["head"] - head).abs() <= 0.51 * head.abs().amax(1, keepdim=True) / 127).all()
    assert torch.equal(Method("products", wire="bfloat16").sent(own).tensors["head"], head.bfloat16().float())


@pytest.mark.parametrize(("wire", "largest"), [("int4", 7), ("int2", 1)])
def test_what_a_difference_is_rounded_off_by_is_in_the_next_one(wire: Literal["int4", "int2"], largest: int) -> None:
    torch.manual_seed(0)
    method = method_of(f"decaf, {wire}, differences")
    own = adapter(torch.randn(7, 3), torch.randn(3, 5))
    moved = adapter(own.products["layer"].b + 0.1, own.products["layer"].a)
    heard = method.sent(own)
    for _ in range(40):
        off = (moved.products["layer"].b - heard.products["layer"].b).abs()
        heard = method.sent(moved, heard)
        after = (moved.products["layer"].b - heard.products["layer"].b).abs()
        ulps = torch.finfo(torch.float32).eps * moved.products["layer"].b.abs().amax(0)
        assert (after <= 0.51 * off.amax(0) / largest + ulps).all()
    assert after.max() < 1e-6
    assert size_on(wire, own) < size_on("int8", own)


def test_of_a_rank_only_the_strongest_directions_are_sent() -> None:
    torch.manual_seed(0)
    own = adapter(torch.randn(7, 3), torch.randn(3, 5))
    sent = method_of("decaf, int8, sent at rank 2").sent(own).products["layer"]
    best = cut(own.products["layer"], 2)
    assert sent.rank == 2
    assert (sent.dense() - best.dense()).norm() <= 0.02 * best.dense().norm()


def test_a_name_says_what_is_unlike_the_paper() -> None:
    assert method_of("decaf") == Method("products")
    assert method_of("dlora, moments anew, near A") == Method("factors", "anew", near_a=True)
    said = "decaf, int8, 4 exchanges, momentum 0.5, balanced, ranks mixed whole"
    assert method_of(said) == Method("products", "kept", False, True, 4, "int8", 0.5, True)
    said = "decaf, balanced, absent 0.1, own rows"
    assert method_of(said) == Method("products", balanced=True, absent=0.1, own_rows=True)


def test_a_name_says_what_else_is_mixed() -> None:
    assert method_of("fedavg") == Method("factors", server=True)
    assert method_of("fedavg of products, balanced") == Method("products", balanced=True, server=True)
    assert method_of("dlora, alternating") == Method("factors", alternating=True)
    assert method_of("decaf, 3 exchanges, chebyshev") == Method("products", exchanges=3, chebyshev=True)
    assert method_of("decaf, residual 2") == Method("products", residual=2, whole=True)
    said = "decaf, tracking, by size, overlap"
    assert method_of(said) == Method("products", tracking=True, by_size=True, overlap=True)
    assert method_of("decaf, nesterov 0.9") == Method("products", nesterov=0.9)
    assert method_of("decaf, balanced, to mesh") == Method("products", balanced=True, to_mesh=True)
    said = "decaf, residual 4, in use, by rank"
    assert method_of(said) == Method("products", residual=4, in_use=True, whole=True, by_rank=True)


@pytest.mark.parametrize("name", ["", "fedprox", "decaf, four exchanges", "decaf, 4 rounds", "decaf,int8"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"none of|says nothing|invalid literal"):
        method_of(name)


@pytest.mark.parametrize(
    "name",
    [
        "dlora, tracking",
        "fedavg, residual 1",
        "dlora-fa, alternating",
        "decaf, chebyshev, momentum 0.5",
        "decaf, overlap, nesterov 0.5",
        "decaf, in use",
        "decaf, to mesh",
        "decaf, by size, by rank",
        "dlora, sent at rank 2",
        "decaf, differences",
        "decaf, int4, differences, tracking",
    ],
)
def test_what_does_not_go_together_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        method_of(name)


def test_a_total_is_the_best_product_of_its_rank_and_tensors_are_summed() -> None:
    torch.manual_seed(0)
    one, other = drawn(2), drawn(3)
    exact = 0.7 * dense(one) - 0.4 * dense(other)
    assert torch.allclose(dense(total([(0.7, one), (-0.4, other)], 3)), exact)
    summed = total([(0.7, one), (-0.4, other)])
    u, values, v = torch.linalg.svd(exact)
    assert torch.allclose(dense(summed), u[:, :2] * values[:2] @ v[:2])
    assert torch.allclose(summed.tensors["head"], torch.tensor([0.3, 0.3], dtype=torch.float64))


def test_what_is_left_over_and_the_mix_are_the_dense_sum() -> None:
    torch.manual_seed(0)
    now, theirs, kept = drawn(2), drawn(2), drawn(2)
    edges = [AdapterEdge(now, theirs, 0.3), plus(kept)]
    mixed = mix_adapters(now, edges).adapter
    exact = 0.7 * dense(now) + 0.3 * dense(theirs) + dense(kept)
    assert torch.allclose(dense(mixed) + dense(left_over(now, edges, mixed, 2)), exact)
    part = dense(left_over(now, edges, mixed, 1))
    values = torch.linalg.svdvals(exact)
    assert torch.allclose(torch.linalg.svdvals(part)[:3], torch.tensor([*values[2:4], 0.0], dtype=torch.float64))


@pytest.mark.parametrize("exchanges", [1, 2, 3, 6])
def test_accelerated_exchanges_are_chebyshevs_polynomial_of_the_mixing_matrix(exchanges: int) -> None:
    matrix, contraction = torch.from_numpy(mixing_matrix(RING, 0)), factor(RING)
    eye = torch.eye(len(matrix), dtype=torch.float64)
    before, now = eye, eye
    for weight in chebyshev(contraction, exchanges):
        before, now = now, weight * matrix @ now + (1 - weight) * before
    values, vectors = torch.linalg.eigh(matrix)
    reach = polynomial(torch.tensor(1 / contraction, dtype=torch.float64), exchanges)
    assert torch.allclose(now, vectors * polynomial(values / contraction, exchanges) / reach @ vectors.mT)
    assert float(torch.linalg.matrix_norm(now - 1 / len(eye), 2)) == pytest.approx(1 / float(reach))
    assert exchanges == 1 or 1 / float(reach) < contraction**exchanges


def test_on_a_full_graph_nothing_is_to_be_accelerated() -> None:
    assert chebyshev(0.0, 3) == [1.0, 1.0, 1.0]


def polynomial(x: torch.Tensor, order: int) -> torch.Tensor:
    """Return Chebyshev's T_order."""
    before, now = x, torch.ones_like(x)
    for _ in range(order):
        before, now = now, 2 * x * now - before
    return now


def test_weights_by_size_keep_the_mean_that_is_weighed_by_examples() -> None:
    examples = torch.tensor([10.0, 40.0, 20.0, 10.0, 5.0, 80.0], dtype=torch.float64)
    matrix, method = torch.from_numpy(mixing_matrix(RING, 0)), method_of("decaf, by size")
    for i in range(6):
        for j in range(6):
            if i != j:
                matrix[i, j] = method.weight(float(matrix[i, j]), int(examples[i]), int(examples[j]))
        matrix[i, i] += 1 - matrix[i].sum()
    assert (matrix >= 0).all()
    assert torch.allclose(examples @ matrix, examples)
    assert torch.allclose(torch.linalg.matrix_power(matrix, 2000), (examples / examples.sum()).expand(6, 6))
    assert method_of("decaf").weight(0.25, 10, 40) == 0.25


def test_tracked_steps_are_gradient_tracking_on_dense_products() -> None:
    torch.manual_seed(0)
    matrix = torch.from_numpy(mixing_matrix(RING, 0))
    nodes, last = [drawn(5)] * 6, torch.zeros(6, 7, 5, dtype=torch.float64)
    trackers: list[Tracker | None] = [None] * 6
    exact, tracked = torch.stack([dense(node) for node in nodes]), last
    for _ in range(4):
        own = [drawn(1) for _ in nodes]
        moves = torch.stack([dense(one) for one in own])
        tracked = torch.einsum("ij,jdk->idk", matrix, tracked) + moves - last
        exact, last = torch.einsum("ij,jdk->idk", matrix, exact + tracked), moves
        nodes, trackers = one_round(matrix, nodes, own, trackers)
        assert torch.allclose(torch.stack([dense(node) for node in nodes]), exact)


def test_corrections_sum_to_zero_though_steps_are_cut() -> None:
    torch.manual_seed(0)
    matrix, nodes = torch.from_numpy(mixing_matrix(RING, 0)), [drawn(2)] * 6  # corrections of rank 8 are never cut
    trackers: list[Tracker | None] = [None] * 6
    for _ in range(4):
        nodes, trackers = one_round(matrix, nodes, [drawn(2) for _ in nodes], trackers)
        corrections = [dense(one.correction) for one in trackers if one is not None and one.correction is not None]
        assert len(corrections) == 6
        assert corrections[0].norm() > 0.1
        assert sum(corrections).norm() < 1e-10  # type: ignore[union-attr]


def one_round(
    matrix: torch.Tensor, nodes: list[Adapter], own: list[Adapter], trackers: list[Tracker | None]
) -> tuple[list[Adapter], list[Tracker | None]]:
    """Let nodes move by what they have of their own, and mix."""
    sent, held = [], []
    for node, move, tracker in zip(nodes, own, trackers, strict=True):
        after = total([(1.0, node), (1.0, move)])
        correction = None if tracker is None else tracker.correction
        after = after if correction is None else corrected(after, correction)
        step = step_between(node, after)
        sent.append(after)
        held.append(Tracker(step, step, correction))
    mixed: list[Adapter] = []
    mixed_trackers: list[Tracker | None] = []
    for i, one in enumerate(sent):
        others = [j for j in range(len(sent)) if j != i and matrix[i, j]]
        edges = [AdapterEdge(one, sent[j], float(matrix[i, j])) for j in others]
        mixed.append(mix_adapters(one, edges).adapter)
        steps = [AdapterEdge(held[i].sent, held[j].sent, float(matrix[i, j])) for j in others]
        mixed_trackers.append(held[i].mixed(steps))
    return mixed, mixed_trackers


def drawn(rank: int) -> Adapter:
    b, a = torch.randn(7, rank, dtype=torch.float64), torch.randn(rank, 5, dtype=torch.float64)
    return Adapter({"layer": Product(b, a, 2.0)}, {"head": torch.ones(2, dtype=torch.float64)})


def dense(adapter: Adapter) -> torch.Tensor:
    return adapter.products["layer"].dense()


def test_labels_weigh_as_in_the_mesh() -> None:
    torch.manual_seed(0)
    shares: Any = [[SimpleNamespace(label=label) for label in own] for own in ((0, 0, 0, 1), (1, 1))]
    outputs, labels = SimpleNamespace(logits=torch.randn(2, 2)), torch.tensor([0, 1])
    even, mean, mesh = (
        losses_of(method_of(f"decaf, balanced, absent 0.1{more}"), shares, 2) for more in ("", ", to mean", ", to mesh")
    )
    assert [loss.mesh for loss in mesh if loss] == [agreed([(0.75, 0.25), (0.0, 1.0)], 2)] * 2
    for one, other in zip(even, mean, strict=True):
        assert one is not None
        assert other is not None
        assert other.mesh == (0.375, 0.625)
        assert float(other(outputs, labels)) != pytest.approx(float(one(outputs, labels)), rel=1e-2)
        one.weigh((0.375, 0.625))
        assert float(other(outputs, labels)) == float(one(outputs, labels))
