"""What holds for every mix, whatever the shapes, ranks, scales and weights."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from decaf_node.lowrank.gauge import align
from decaf_node.lowrank.mix import mix_products
from decaf_node.lowrank.product import Product
from tests.lowrank.oracle import Factors, best, dense

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Sum:
    products: list[Product]
    weights: list[float]
    factors: Factors

    @property
    def side(self) -> int:
        return min(self.products[0].shape)


@st.composite
def sums(draw: st.DrawFn, lowest: int = -100) -> Sum:
    d, k = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    ranks = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    percent = draw(st.lists(st.integers(lowest, 100), min_size=len(ranks), max_size=len(ranks)))
    scales = draw(st.lists(st.floats(0.1, 8.0), min_size=len(ranks), max_size=len(ranks)))
    factors = Factors(draw(st.integers(0, 2**32 - 1)))
    return Sum(
        [factors.product(d, r, k, s) for r, s in zip(ranks, scales, strict=True)], [p / 100 for p in percent], factors
    )


quick = settings(max_examples=60, deadline=None)


@quick
@given(sums(), st.integers(1, 16))
def test_nothing_of_that_rank_is_nearer_to_the_sum(case: Sum, rank: int) -> None:
    oracle = best(case.products, case.weights, rank)
    mixed = mix_products(case.products, case.weights, rank)
    missed = (dense(mixed.product) - oracle.total).norm().item()
    least = oracle.values[rank:].norm().item()
    assert missed <= least + TOLERANCE * oracle.size
    assert mixed.tail.item() == pytest.approx(least, abs=TOLERANCE * oracle.size)


@quick
@given(sums(), st.integers(1, 5))
def test_the_order_of_the_products_does_not_matter(case: Sum, rank: int) -> None:
    _assume_unique(case, rank)
    pairs = list(zip(case.products, case.weights, strict=True))
    random.Random(0).shuffle(pairs)
    _assert_same(case, rank, [product for product, _ in pairs], [weight for _, weight in pairs])


@quick
@given(sums(), st.integers(1, 5), st.floats(1.0, 100.0))
def test_the_factors_of_the_products_do_not_matter(case: Sum, rank: int, condition: float) -> None:
    _assume_unique(case, rank)
    turned = [case.factors.regauged(product, condition) for product in case.products]
    # What rounding the other factors to float32 has changed is not the mix's doing.
    changed = sum(a.distance(b).item() for a, b in zip(case.products, turned, strict=True))
    _assert_same(case, rank, turned, case.weights, 100 * changed)


@quick
@given(sums())
def test_the_mix_is_the_sum_where_the_sum_fits(case: Sum) -> None:
    rank = sum(product.rank for product in case.products)
    oracle = best(case.products, case.weights, rank)
    mixed = mix_products(case.products, case.weights, rank)
    assert (dense(mixed.product) - oracle.total).norm().item() <= TOLERANCE * oracle.size
    assert mixed.tail.item() <= TOLERANCE * oracle.size


@quick
@given(sums(), st.floats(0.1, 8.0))
def test_weights_of_one_node_alone_reproduce_its_product(case: Sum, scale: float) -> None:
    weights = [1.0] + [0.0] * (len(case.products) - 1)
    own = case.products[0]
    mixed = mix_products(case.products, weights, own.rank, scale).product
    assert (dense(mixed) - dense(own)).norm().item() <= 3e-7 * own.norm().item()


@quick
@given(sums(lowest=0))
def test_alpha_counts_as_the_size_of_b(case: Sum) -> None:
    _assume_unique(case, 3)
    plain = [Product(product.b * product.scale, product.a) for product in case.products]
    _assert_same(case, 3, plain, case.weights)


@quick
@given(sums(), st.integers(1, 8))
def test_alignment_leaves_the_product_alone(case: Sum, rank: int) -> None:
    d, k = case.products[0].shape
    new = mix_products(case.products, case.weights, rank).product
    old = case.factors.product(d, rank, k)
    aligned = align(new, old)
    assert (dense(aligned) - dense(new)).norm().item() <= 3e-7 * dense(new).norm().item()


def _assume_unique(case: Sum, rank: int) -> None:
    """The best product is unique where there is a gap in the spectrum; nearly equal values amplify rounding."""
    oracle = best(case.products, case.weights, rank)
    if rank < len(oracle.values):
        assume((oracle.values[rank - 1] - oracle.values[rank]).item() > 0.05 * oracle.size)


def _assert_same(case: Sum, rank: int, products: list[Product], weights: list[float], slack: float = 0.0) -> None:
    first = mix_products(case.products, case.weights, rank).product
    second = mix_products(products, weights, rank).product
    size = sum(abs(weight) * product.norm().item() for weight, product in zip(weights, products, strict=True))
    assert torch.dist(dense(first), dense(second)).item() <= TOLERANCE * size + slack
