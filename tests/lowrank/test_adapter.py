from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from decaf_node.lowrank.adapter import (
    Adapter,
    common_distance,
    distance,
    factor_distance,
    factor_norm,
    is_finite,
    medoid,
    norm,
    plain_distance,
    plain_norm,
)
from decaf_node.lowrank.mix import cut
from decaf_node.lowrank.mixing import AdapterEdge, MixedAdapter, adopt, adopt_factors, mix_adapters, mix_factors
from decaf_node.lowrank.product import BadProduct, Product
from tests.lowrank.oracle import Factors, best, dense, relative

SHAPES = {"q proj": (40, 30), "layer.0.v": (40, 30), "down": (25, 60)}


def _adapter(factors: Factors, r: int = 4, scale: float = 2.0, dtype: torch.dtype = torch.float32) -> Adapter:
    return Adapter(
        {name: factors.product(d, r, k, scale, dtype) for name, (d, k) in SHAPES.items()},
        {"head.weight": factors.normal(5, 3).to(dtype), "head.bias": factors.normal(5).to(dtype)},
    )


def _synchronous(now: Adapter, others: Sequence[Adapter], weights: Sequence[float]) -> MixedAdapter:
    edges = [AdapterEdge(now, theirs, weight) for theirs, weight in zip(others, weights, strict=True)]
    return mix_adapters(now, edges)


def _correction(now: Tensor, edges: Sequence[tuple[Tensor, Tensor, float]]) -> Tensor:
    return now.double() + torch.stack([w * (theirs.double() - own.double()) for own, theirs, w in edges]).sum(0)


def test_a_synchronous_mix_is_the_weighted_mean_cut_to_our_rank() -> None:
    factors = Factors()
    now, others, weights = _adapter(factors), [_adapter(factors) for _ in range(3)], [0.25, 0.2, 0.3]
    mixed = _synchronous(now, others, weights)
    squared, kept = 0.0, 0.0
    for name in SHAPES:
        layer = [now.products[name], *(other.products[name] for other in others)]
        oracle = best(layer, [0.25, *weights], 4)
        assert relative(mixed.adapter.products[name], oracle.best) <= 1e-6
        squared += oracle.values[4:].square().sum().item()
        kept += oracle.values[:4].square().sum().item()
    assert mixed.tail == pytest.approx(math.sqrt(squared), rel=1e-6)
    assert mixed.norm == pytest.approx(math.sqrt(kept), rel=1e-9)
    assert mixed.norm == pytest.approx(norm(mixed.adapter), rel=1e-7)  # whose factors are rounded to float32
    expected = 0.25 * now.tensors["head.bias"]
    for other, weight in zip(others, weights, strict=True):
        expected = expected + weight * other.tensors["head.bias"]
    assert torch.allclose(mixed.adapter.tensors["head.bias"], expected, atol=1e-6)


def test_a_late_mix_is_a_correction_in_product_space() -> None:
    factors = Factors()
    now, own, older = _adapter(factors), _adapter(factors), _adapter(factors)
    theirs = [_adapter(factors) for _ in range(3)]
    edges = [AdapterEdge(own, theirs[0], 0.3), AdapterEdge(own, theirs[1], 0.2), AdapterEdge(older, theirs[2], 0.1)]
    mixed = mix_adapters(now, edges)
    for name in SHAPES:
        layer = [edge.theirs.products[name] for edge in edges] + [edge.own.products[name] for edge in edges]
        oracle = best([now.products[name], *layer], [1.0, 0.3, 0.2, 0.1, -0.3, -0.2, -0.1], 4)
        assert (dense(mixed.adapter.products[name]) - oracle.best).norm() <= 1e-6 * oracle.size
    for name in now.tensors:
        triples = [(edge.own.tensors[name], edge.theirs.tensors[name], edge.weight) for edge in edges]
        expected = _correction(now.tensors[name], triples)
        assert torch.allclose(mixed.adapter.tensors[name].double(), expected, atol=1e-6)


def test_both_ends_keep_the_sum_whatever_the_wire_rounds() -> None:
    factors = Factors()
    pair = [_adapter(factors, r=2), _adapter(factors, r=2)]
    # Room for all: rank 8 holds now (2), theirs (2) and own (2), so nothing is cut and the sum can be seen.
    now = [_padded(adapter, 8) for adapter in pair]
    sent = [_cast(adapter, torch.bfloat16) for adapter in pair]
    mixed = [mix_adapters(now[i], [AdapterEdge(sent[i], sent[1 - i], 0.5)]).adapter for i in range(2)]
    for name in SHAPES:
        before = dense(now[0].products[name]) + dense(now[1].products[name])
        after = dense(mixed[0].products[name]) + dense(mixed[1].products[name])
        assert (after - before).norm() <= 1e-6 * before.norm()


def _padded(adapter: Adapter, rank: int) -> Adapter:
    pad = torch.nn.functional.pad
    products = {
        name: Product(pad(p.b, (0, rank - p.rank)), pad(p.a, (0, 0, 0, rank - p.rank)), p.scale)
        for name, p in adapter.products.items()
    }
    return Adapter(products, adapter.tensors)


def _cast(adapter: Adapter, dtype: torch.dtype) -> Adapter:
    products = {n: Product(p.b.to(dtype), p.a.to(dtype), p.scale) for n, p in adapter.products.items()}
    return Adapter(products, {name: tensor.to(dtype) for name, tensor in adapter.tensors.items()})


def test_neighbours_may_have_other_ranks_scales_and_dtypes() -> None:
    factors = Factors()
    now = _adapter(factors, r=8, scale=2.0)
    others = [_adapter(factors, 4, 0.5), _adapter(factors, 16, 4.0, torch.bfloat16)]
    mixed = _synchronous(now, others, [0.3, 0.3])
    for name in SHAPES:
        product = mixed.adapter.products[name]
        assert (product.rank, product.scale, product.b.dtype) == (8, 2.0, torch.float32)
        own, (low, high) = now.products[name], [other.products[name] for other in others]
        total = 0.7 * dense(own) + 0.3 * (dense(low) - best([own], [1.0], 4).best) + 0.3 * best([high], [1.0], 8).best
        u, values, v = torch.linalg.svd(total, full_matrices=False)
        assert relative(product, (u[:, :8] * values[:8]) @ v[:8]) <= 1e-6
    assert math.isnan(mixed.interference)
    assert mixed.adapter.tensors["head.bias"].dtype == torch.float32


def test_ends_of_other_ranks_change_by_the_same() -> None:
    """Where nothing is cut afterwards, as here at rank 24, the sum over both ends stays."""
    factors = Factors()
    low, high = _adapter(factors, r=4), _adapter(factors, r=16)
    mixed = [
        mix_adapters(_padded(own, 24), [AdapterEdge(own, theirs, 0.5)]) for own, theirs in ((low, high), (high, low))
    ]
    for name in SHAPES:
        before = dense(low.products[name]) + dense(high.products[name])
        after = sum(dense(end.adapter.products[name]) for end in mixed)
        assert (after - before).norm() <= 1e-5 * before.norm()


def test_ends_of_other_ranks_are_as_far_apart_as_what_they_mix() -> None:
    """An honest neighbour of a lower rank, which agrees as far as it can, is not far away: it must not be clipped."""
    high = _adapter(Factors(), r=16)
    low = Adapter({name: cut(product, 4) for name, product in high.products.items()}, high.tensors)
    assert common_distance(low, high) == pytest.approx(common_distance(high, low), abs=1e-5 * norm(high))
    assert common_distance(low, high) <= 1e-5 * norm(high) < distance(low, high)
    other = _adapter(Factors(1), r=16)
    assert common_distance(high, other) == distance(high, other)


def test_what_only_the_higher_ranks_can_hold_is_not_erased() -> None:
    """Thirty rounds of mixing on a ring of ranks 4, 8 and 16, each node knowing the same matrix as well as it can.

    Mixed as a whole, all would end with rank 4's part of it, more than half the matrix away for the others.
    """
    factors = Factors()
    whole = {name: factors.product(d, 16, k) for name, (d, k) in SHAPES.items()}
    ring = [Adapter({name: cut(product, rank) for name, product in whole.items()}, {}) for rank in (4, 8, 16) * 3]
    start = list(ring)
    for _ in range(30):
        sides = [(ring[number - 1], ring[(number + 1) % len(ring)]) for number in range(len(ring))]
        ring = [_synchronous(now, near, [1 / 3, 1 / 3]).adapter for now, near in zip(ring, sides, strict=True)]
    for now, before in zip(ring, start, strict=True):
        assert distance(now, before) <= 0.05 * norm(before)


def test_a_bfloat16_node_stays_one() -> None:
    factors = Factors()
    mixed = _synchronous(_adapter(factors, dtype=torch.bfloat16), [_adapter(factors)], [0.5]).adapter
    assert {product.a.dtype for product in mixed.products.values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in mixed.tensors.values()} == {torch.bfloat16}


def test_without_edges_the_product_stays() -> None:
    now = _adapter(Factors())
    mixed = mix_adapters(now, [])
    assert distance(mixed.adapter, now) <= 2e-7 * norm(now)
    assert mixed.tail <= 1e-6 * norm(now)
    assert mixed.interference <= 1e-6 * norm(now)
    assert list(mixed.adapter.products) == list(SHAPES)


def test_factors_stay_near_ours_and_ours_are_not_touched() -> None:
    factors = Factors()
    now = mix_adapters(_adapter(factors), []).adapter  # balanced, as after any mix
    before = {name: (p.b.clone(), p.a.clone()) for name, p in now.products.items()}
    others = [
        Adapter({n: Product(p.b + 1e-3 * factors.normal(*p.b.shape), p.a, 2.0) for n, p in now.products.items()}, {})
    ]
    mixed = mix_adapters(Adapter(now.products, {}), [AdapterEdge(Adapter(now.products, {}), others[0], 0.5)]).adapter
    for name, (b, a) in before.items():
        assert (mixed.products[name].a - a).norm() <= 0.01 * a.norm()
        assert torch.equal(now.products[name].b, b)
        assert mixed.products[name].b.data_ptr() != now.products[name].b.data_ptr()


def test_interference_is_the_error_of_averaging_factors() -> None:
    factors = Factors()
    now, others = _adapter(factors), [_adapter(factors, scale=0.5), _adapter(factors, scale=4.0)]
    mixed = _synchronous(now, others, [0.3, 0.2])
    averaged = mix_factors(
        now, [AdapterEdge(now, o, w) for o, w in zip(others, [0.3, 0.2], strict=True)], frozen_a=False
    )
    squared = 0.0
    for name in SHAPES:
        exact = best([a.products[name] for a in (now, *others)], [0.5, 0.3, 0.2], 4).total
        squared += (exact - dense(averaged.adapter.products[name])).square().sum().item()
    assert mixed.interference == pytest.approx(math.sqrt(squared), rel=1e-5)
    assert averaged.interference == pytest.approx(math.sqrt(squared), rel=1e-5)
    assert averaged.tail == 0.0


def test_factors_of_one_scale_are_averaged_apart() -> None:
    factors = Factors()
    now, own, theirs = _adapter(factors), _adapter(factors), _adapter(factors)
    mixed = mix_factors(now, [AdapterEdge(own, theirs, 0.25)], frozen_a=False).adapter
    for name in SHAPES:
        n, o, t = (adapter.products[name] for adapter in (now, own, theirs))
        assert torch.allclose(mixed.products[name].b, n.b + 0.25 * (t.b - o.b), atol=1e-6)
        assert torch.allclose(mixed.products[name].a, n.a + 0.25 * (t.a - o.a), atol=1e-6)
    assert torch.allclose(
        mixed.tensors["head.bias"],
        now.tensors["head.bias"] + 0.25 * (theirs.tensors["head.bias"] - own.tensors["head.bias"]),
        atol=1e-6,
    )


def test_with_a_frozen_a_averaging_is_exact() -> None:
    factors = Factors()
    now = _adapter(factors)
    others = [_sharing_a(factors, now, 0.5), _sharing_a(factors, now, 4.0)]
    edges = [AdapterEdge(now, other, 0.3) for other in others]
    mixed = mix_factors(now, edges, frozen_a=True)
    for name in SHAPES:
        exact = best([a.products[name] for a in (now, *others)], [0.4, 0.3, 0.3], 4).total
        assert relative(mixed.adapter.products[name], exact) <= 1e-6
        assert torch.equal(mixed.adapter.products[name].a, now.products[name].a)
    assert mixed.interference == 0.0


def test_a_frozen_a_may_come_rounded_but_not_another() -> None:
    factors = Factors()
    now = _adapter(factors)
    sent, theirs = _cast(now, torch.bfloat16), _cast(_sharing_a(factors, now, 2.0), torch.bfloat16)
    mixed = mix_factors(now, [AdapterEdge(sent, theirs, 0.5)], frozen_a=True).adapter
    assert torch.equal(mixed.products["down"].a, now.products["down"].a)
    with pytest.raises(BadProduct) as refused:
        mix_factors(now, [AdapterEdge(now, _adapter(factors), 0.5)], frozen_a=True)
    assert refused.value.reason == "adapter.frozen-a"


def _sharing_a(factors: Factors, other: Adapter, scale: float) -> Adapter:
    products = {n: Product(factors.normal(*p.b.shape), p.a, scale) for n, p in other.products.items()}
    return Adapter(products, other.tensors)


def test_factors_of_other_ranks_are_not_averaged() -> None:
    factors = Factors()
    now, other = _adapter(factors), _adapter(factors, r=5)
    with pytest.raises(BadProduct) as refused:
        mix_factors(now, [AdapterEdge(now, other, 0.5)], frozen_a=False)
    assert refused.value.reason == "adapter.rank"


def test_distance_and_norm_are_over_all_layers() -> None:
    factors = Factors()
    x, y = _adapter(factors), _adapter(factors, r=7, scale=0.3)
    apart = math.sqrt(sum((dense(x.products[n]) - dense(y.products[n])).square().sum().item() for n in SHAPES))
    assert distance(x, y) == pytest.approx(apart, rel=1e-9)
    assert norm(x) == pytest.approx(math.sqrt(sum(dense(x.products[n]).square().sum().item() for n in SHAPES)))
    assert norm(Adapter({}, {"head": torch.ones(3)})) == 0.0


def test_factors_and_plain_tensors_have_distances_of_their_own() -> None:
    b, a = torch.ones(3, 2), torch.ones(2, 4)
    one = Adapter({"x": Product(b, a)}, {"head": torch.ones(4), "bias": torch.zeros(2)})
    other = Adapter({"x": Product(2 * b, a / 2)}, {"head": torch.zeros(4), "bias": torch.full((2,), 2.0)})
    assert distance(one, other) == pytest.approx(0.0, abs=1e-6)
    assert factor_distance(one, other) == pytest.approx(math.sqrt(6 * 1.0 + 8 * 0.25))
    assert factor_norm(one) == pytest.approx(math.sqrt(14))
    assert plain_distance(one, other) == pytest.approx(math.sqrt(4 + 2 * 4))
    assert plain_norm(one) == pytest.approx(2.0)
    assert plain_norm(other) == pytest.approx(math.sqrt(8))
    bare = Adapter({"x": Product(b, a)}, {})
    assert (plain_distance(bare, bare), plain_norm(bare)) == (0.0, 0.0)


def test_the_medoid_is_in_the_middle() -> None:
    factors = Factors()
    middle = _adapter(factors)
    near = [_shifted(factors, middle, 0.01) for _ in range(2)]
    liar = _shifted(factors, middle, 100.0)
    assert medoid([near[0], middle, liar, near[1]]) == 1
    assert medoid([middle]) == 0
    assert medoid([liar, middle]) == 0  # of two, each is as good
    broken = _shifted(factors, middle, math.nan)
    assert medoid([broken, near[0], middle, near[1]]) == 2
    with pytest.raises(BadProduct):
        medoid([])


def _shifted(factors: Factors, adapter: Adapter, size: float) -> Adapter:
    products = {n: Product(p.b + size * factors.normal(*p.b.shape), p.a, p.scale) for n, p in adapter.products.items()}
    return Adapter(products, adapter.tensors)


def test_adopting_adds_our_own_change() -> None:
    factors = Factors()
    base, chosen, now = _adapter(factors), _adapter(factors, r=6, scale=1.0), _adapter(factors)
    adopted = adopt(chosen, now, base)
    for name in SHAPES:
        parts = [chosen.products[name], now.products[name], base.products[name]]
        oracle = best(parts, [1.0, 1.0, -1.0], 4)
        assert (dense(adopted.products[name]) - oracle.best).norm() <= 1e-6 * oracle.size
        assert (adopted.products[name].rank, adopted.products[name].scale) == (4, 2.0)
    for name in now.tensors:
        expected = chosen.tensors[name] + now.tensors[name] - base.tensors[name]
        assert torch.allclose(adopted.tensors[name], expected, atol=1e-6)


def test_adopting_without_a_change_is_taking() -> None:
    factors = Factors()
    chosen, now = _adapter(factors), _adapter(factors)
    adopted = adopt(chosen, now, now)
    assert distance(adopted, chosen) <= 1e-6 * norm(chosen)
    assert torch.allclose(adopted.tensors["head.bias"], chosen.tensors["head.bias"])


def test_adopting_afresh_takes_the_plain_tensors_as_they_are() -> None:
    factors = Factors()
    chosen, fresh = _adapter(factors), _adapter(factors)
    now = Adapter({n: Product(torch.zeros_like(p.b), p.a, 2.0) for n, p in fresh.products.items()}, fresh.tensors)
    adopted = adopt(chosen, now, None)
    assert distance(adopted, chosen) <= 1e-6 * norm(chosen)
    assert torch.equal(adopted.tensors["head.weight"], chosen.tensors["head.weight"])
    adopted.tensors["head.weight"][0] = 7.0
    assert not torch.equal(adopted.tensors["head.weight"], chosen.tensors["head.weight"])


def test_adopting_factors_keeps_the_factors_that_all_share() -> None:
    factors = Factors()
    chosen, now, base = _adapter(factors), _adapter(factors), _adapter(factors)
    adopted, afresh = adopt_factors(chosen, now, base, frozen_a=False), adopt_factors(chosen, now, None, frozen_a=False)
    for name in SHAPES:
        c, n, b = (adapter.products[name] for adapter in (chosen, now, base))
        assert torch.allclose(adopted.products[name].a, c.a + n.a - b.a, atol=1e-6)
        assert torch.allclose(adopted.products[name].b, c.b + n.b - b.b, atol=1e-6)
        assert torch.allclose(afresh.products[name].a, c.a, atol=1e-6)
        assert torch.allclose(afresh.products[name].b, c.b + n.b, atol=1e-6)
    assert torch.allclose(afresh.tensors["head.bias"], chosen.tensors["head.bias"], atol=1e-6)


def test_adopting_with_a_frozen_a_leaves_a_alone() -> None:
    factors = Factors()
    now = _adapter(factors)
    chosen = _sharing_a(factors, now, 4.0)
    adopted = adopt_factors(chosen, now, None, frozen_a=True)
    for name in SHAPES:
        assert torch.equal(adopted.products[name].a, now.products[name].a)
        assert relative(adopted.products[name], dense(chosen.products[name]) + dense(now.products[name])) <= 1e-6


def test_finite_or_not() -> None:
    adapter = _adapter(Factors())
    assert is_finite(adapter)
    adapter.tensors["head.bias"][2] = math.inf
    assert not is_finite(adapter)
    adapter = _adapter(Factors())
    adapter.products["down"].a[0, 0] = math.nan
    assert not is_finite(adapter)


@pytest.mark.parametrize("where", ["product", "tensor"])
def test_a_neighbour_that_is_not_finite_is_refused(where: str) -> None:
    factors = Factors()
    now, theirs = _adapter(factors), _adapter(factors)
    (theirs.products["down"].b if where == "product" else theirs.tensors["head.weight"])[0, 0] = math.nan
    with pytest.raises(BadProduct) as refused:
        mix_adapters(now, [AdapterEdge(now, theirs, 0.5)])
    assert refused.value.reason == "product.not-finite"


def test_adapters_that_do_not_match_are_refused() -> None:
    factors = Factors()
    now, theirs = _adapter(factors), _adapter(factors)
    for other, reason in (
        (Adapter({**theirs.products, "more": theirs.products["down"]}, theirs.tensors), "adapter.names"),
        (Adapter(theirs.products, {}), "adapter.names"),
        (Adapter({**theirs.products, "down": factors.product(60, 4, 25)}, theirs.tensors), "adapter.shape"),
        (Adapter(theirs.products, {**theirs.tensors, "head.bias": torch.zeros(6)}), "adapter.shape"),
    ):
        with pytest.raises(BadProduct) as refused:
            mix_adapters(now, [AdapterEdge(now, other, 0.5)])
        assert refused.value.reason == reason
    with pytest.raises(BadProduct) as refused:
        mix_adapters(now, [AdapterEdge(now, theirs, math.nan)])
    assert refused.value.reason == "product.weights"


def test_a_scale_that_cannot_be_divided_by_is_refused() -> None:
    now = _adapter(Factors(), scale=0.0)
    with pytest.raises(BadProduct) as refused:
        mix_adapters(now, [])
    assert refused.value.reason == "adapter.scale"
    with pytest.raises(BadProduct) as refused:
        mix_factors(now, [], frozen_a=False)
    assert refused.value.reason == "adapter.scale"


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_groups_change_nothing(threads: int) -> None:
    factors = Factors()
    now, theirs = _adapter(factors), _adapter(factors)
    alone = _synchronous(now, [theirs], [0.5])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        mixed = mix_adapters(now, [AdapterEdge(now, theirs, 0.5)], memory_bytes=1)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert distance(mixed.adapter, alone.adapter) <= 1e-6 * norm(now)


@pytest.mark.parametrize("share", [32 * 1024, 192 * 1024])
def test_large_layers_of_all_kinds_are_solved_together(share: int) -> None:
    """Of most by Gram matrices, of what cancels by QR, and of some nothing is left; with little memory each alone."""
    factors = Factors()
    rows, rank, columns = 500, 3, 400
    products = [[factors.product(rows, rank, columns, 2.0) for _ in range(24)] for _ in range(2)]
    for place in range(1, 24, 5):
        ours = products[0][place]
        products[1][place] = Product(ours.b * (-2 + 1e-6), ours.a.clone(), ours.scale)
    for place in range(3, 24, 5):  # not trained yet, at either end
        products[0][place], products[1][place] = (factors.fresh(rows, rank, columns) for _ in range(2))
    now, theirs = (Adapter({f"layer.{place}": p for place, p in enumerate(side)}, {}) for side in products)
    nothing = Adapter({name: Product(torch.zeros_like(p.b), p.a, p.scale) for name, p in now.products.items()}, {})
    edges = [AdapterEdge(nothing, theirs, 0.5)]
    mixed = mix_adapters(now, edges, memory_bytes=share * torch.get_num_threads())
    assert list(mixed.adapter.products) == list(now.products)
    squared = 0.0
    for name, product in mixed.adapter.products.items():
        oracle = best([now.products[name], theirs.products[name]], [1.0, 0.5], rank)
        assert (dense(product) - oracle.best).norm() <= 1e-6 * oracle.size, name
        assert product.a.any(-1).all(), "a dead direction keeps a row of A, that it may learn again"
        squared += oracle.values[rank:].square().sum().item()
    assert mixed.tail == pytest.approx(math.sqrt(squared), rel=1e-6)


def test_parameters_under_training_can_be_mixed() -> None:
    factors = Factors()
    now, theirs = _adapter(factors), _adapter(factors)
    for product in now.products.values():
        product.b.requires_grad_()
    now.tensors["head.bias"].requires_grad_()
    mixed = mix_adapters(now, [AdapterEdge(now, theirs, 0.5)]).adapter
    assert not any(p.b.requires_grad or p.a.requires_grad for p in mixed.products.values())
    assert not mixed.tensors["head.bias"].requires_grad


PEAK = """
import sys, torch
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.mixing import AdapterEdge, mix_adapters
from decaf_node.lowrank.product import Product

def peak(field):
    with open("/proc/self/status") as status:
        return int(next(line.split()[1] for line in status if line.startswith(field))) * 1024

def adapter(d, k, layers):
    return Adapter({str(i): Product(torch.randn(d, 16), torch.randn(16, k)) for i in range(layers)}, {})

def mix(d, k, layers):
    now, *others = [adapter(d, k, layers) for _ in range(6)]
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    before = peak("VmRSS")
    mixed = mix_adapters(now, [AdapterEdge(now, other, 1 / 6) for other in others], memory_bytes=int(sys.argv[1]))
    outputs = sum(p.b.nbytes + p.a.nbytes for p in mixed.adapter.products.values())
    return peak("VmHWM") - before - outputs

torch.set_num_threads(2)
mix(500, 300, 4)
d, k = map(int, sys.argv[2:])
print(mix(d, k, 2))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("d", "k"), [(131072, 300), (300, 131072)])
def test_the_memory_of_a_mix_is_bounded(d: int, k: int) -> None:
    """One layer's stack has 96 MiB in float64; 64 must do for two layers at a time, one on each thread.

    What the allocator of libc keeps for later is not what the mix needs: it gives all back at once here.
    """
    bound = 64 * 1024 * 1024
    command = [sys.executable, "-c", PEAK, str(bound), str(d), str(k)]
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    used = int(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
    assert used <= bound
