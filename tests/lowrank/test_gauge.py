from __future__ import annotations

import pytest
import torch

from decaf_node.lowrank.gauge import FRESH_LENGTH, align
from decaf_node.lowrank.mix import mix_products
from decaf_node.lowrank.product import BadProduct, Product
from tests.lowrank.oracle import Factors, dense, relative

D, K, R = 120, 70, 8


def _cosine(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x * y).sum() / (x.norm() * y.norm()))


def test_new_factors_are_turned_to_the_old_ones() -> None:
    factors = Factors()
    old = mix_products([factors.product(D, R, K)], [1.0], R).product  # balanced, as after any mix
    moved = Product(old.b + 0.02 * factors.normal(D, R), old.a + 0.02 * factors.normal(R, K))
    turned = Product(moved.b @ (q := factors.orthogonal(R).float()), q.T @ moved.a)
    bare, aligned = mix_products([turned], [1.0], R).product, align(turned, old)
    assert abs(_cosine(bare.a, old.a)) < 0.9
    assert _cosine(aligned.a, old.a) > 0.99
    assert _cosine(aligned.b, old.b) > 0.99


def test_a_reflection_is_undone() -> None:
    factors = Factors()
    old = mix_products([factors.product(D, R, K)], [1.0], R).product
    sign = torch.tensor([-1.0] + [1.0] * (R - 1))
    aligned = align(Product(old.b * sign, sign[:, None] * old.a), old)
    assert torch.allclose(aligned.b, old.b, atol=1e-5)
    assert torch.allclose(aligned.a, old.a, atol=1e-5)


@pytest.mark.parametrize("old_size", [0.0, 1e-4, 1.0])
def test_the_product_is_unchanged(old_size: float) -> None:
    factors = Factors()
    new = Product(factors.spectrum(D, R, 1e-5), factors.normal(R, K), 2.0)
    aligned = align(new, factors.fresh(D, R, K, old_size))
    assert relative(aligned, dense(new)) <= 2e-7
    assert aligned.scale == 2.0


def test_the_factors_come_out_balanced() -> None:
    factors = Factors()
    old = factors.fresh(D, R, K, 1e-3)
    aligned = align(old, old)
    assert aligned.b.norm().item() == pytest.approx(aligned.a.norm().item(), rel=1e-5)
    assert _cosine(aligned.a, old.a) > 0.95


def test_a_product_of_zero_keeps_the_old_a() -> None:
    factors = Factors()
    old = factors.fresh(D, R, K)
    aligned = align(mix_products([old, factors.fresh(D, R, K)], [0.5, 0.5], R).product, old)
    assert torch.equal(aligned.a, old.a)
    assert not aligned.b.any()


def test_dead_directions_have_no_b_and_an_a_of_their_own() -> None:
    factors = Factors()
    old = factors.fresh(D, R, K)
    new = Product(torch.cat([factors.normal(D, 3), torch.zeros(D, R - 3)], -1), factors.normal(R, K))
    aligned = align(new, old)
    dead = aligned.b.norm(dim=0) == 0
    assert int(dead.sum()) == R - 3
    assert relative(aligned, dense(new)) <= 2e-7
    across = aligned.a[dead] @ aligned.a[~dead].T
    assert across.norm() <= 1e-5 * aligned.a[~dead].norm() * aligned.a[dead].norm()
    assert all(_cosine(row, before) > 0.9 for row, before in zip(aligned.a[dead], old.a[dead], strict=True))


def test_the_weakest_old_columns_die() -> None:
    factors = Factors()
    old = factors.product(D, R, K)
    old.b[:, [1, 4]] = 0
    aligned = align(Product(old.b.clone(), old.a.clone()), old)
    assert (aligned.b.norm(dim=0) == 0).nonzero().flatten().tolist() == [1, 4]


def test_random_rows_stand_in_where_the_old_a_has_nothing_left() -> None:
    factors = Factors()
    old = Product(torch.zeros(D, R), factors.normal(2, K).repeat(R // 2, 1))  # rank 2
    new = Product(torch.cat([factors.normal(D, 2), torch.zeros(D, R - 2)], -1), old.a.clone())
    first, again = align(new, old), align(new, old)
    assert torch.equal(first.a, again.a)
    dead = first.a[first.b.norm(dim=0) == 0]
    lengths = torch.linalg.svdvals(dead)
    assert lengths.min() > 0.5 * lengths.max()
    assert (dead @ first.a[first.b.norm(dim=0) > 0].T).abs().max() <= 1e-3


def test_two_zero_factors_come_back_to_life() -> None:
    nothing = Product(torch.zeros(D, R), torch.zeros(R, K))
    aligned = align(nothing, nothing)
    assert not aligned.b.any()
    assert torch.allclose(aligned.a.norm(dim=1), torch.full((R,), FRESH_LENGTH), rtol=1e-3)


def test_training_goes_on_after_a_mix_of_zeros() -> None:
    factors = Factors()
    old = factors.fresh(D, R, K)
    aligned = align(mix_products([old], [1.0], R, 2.0).product, old)
    b, a = aligned.b.requires_grad_(), aligned.a
    (gradient,) = torch.autograd.grad(((b @ a) * factors.normal(D, K)).sum(), b)
    assert (gradient.norm(dim=0) > 0).all()


def test_layers_of_a_batch_are_aligned_each_for_itself() -> None:
    factors = Factors()
    old = Product(factors.normal(3, D, R), factors.normal(3, R, K))
    new = Product(factors.normal(3, D, R), factors.normal(3, R, K))
    new.b[1] = 0
    aligned = align(new, old)
    for layer in range(3):
        alone = align(Product(new.b[layer], new.a[layer]), Product(old.b[layer], old.a[layer]))
        assert torch.allclose(aligned.b[layer], alone.b, atol=1e-5)
        assert torch.allclose(aligned.a[layer], alone.a, atol=1e-5)
    assert torch.equal(aligned.a[1], old.a[1])


def test_more_rank_than_columns() -> None:
    factors = Factors()
    old, new = factors.product(5, 8, 3), factors.product(5, 8, 3)
    assert relative(align(new, old), dense(new)) <= 3e-7


def test_other_ranks_are_refused() -> None:
    factors = Factors()
    with pytest.raises(BadProduct, match=r"rank 4 .* rank 8"):
        align(factors.product(D, 4, K), factors.product(D, 8, K))
