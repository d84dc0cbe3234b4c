"""The mix against the dense float64 SVD, on everything that has gone wrong somewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from decaf_node.lowrank.mix import CONDITION_LIMIT, Path, mix_products
from decaf_node.lowrank.product import BadProduct, Product
from tests.lowrank.oracle import Factors, best, dense, relative

D, K = 120, 70
PATHS: tuple[Path, ...] = ("auto", "gram", "qr")
Case = Callable[[Factors], tuple[list[Product], list[float], int]]


def _equal(count: int) -> list[float]:
    return [1 / count] * count


def _plain(f: Factors) -> tuple[list[Product], list[float], int]:
    return [f.product(D, 8, K, 2.0) for _ in range(5)], _equal(5), 8


def _wide(f: Factors) -> tuple[list[Product], list[float], int]:
    return [f.product(K, 8, D, 2.0) for _ in range(5)], _equal(5), 8


def _square(f: Factors) -> tuple[list[Product], list[float], int]:
    return [f.product(D, 8, D) for _ in range(5)], _equal(5), 8


def _mixed_ranks_and_scales(f: Factors) -> tuple[list[Product], list[float], int]:
    return [f.product(D, r, K, s) for r, s in ((8, 2.0), (4, 0.5), (16, 8.0), (1, 1.0))], [0.4, 0.1, 0.3, 0.2], 8


def _one_neighbour(f: Factors) -> tuple[list[Product], list[float], int]:
    return [f.product(D, 8, K, 2.0), f.product(D, 8, K, 2.0)], [0.5, 0.5], 8


def _sixteen_neighbours(f: Factors) -> tuple[list[Product], list[float], int]:
    return [f.product(D, 8, K, 2.0) for _ in range(17)], _equal(17), 8


def _negative_weights(f: Factors) -> tuple[list[Product], list[float], int]:
    return [f.product(D, 4, K) for _ in range(4)], [1.0, 0.7, -0.4, -0.3], 8


def _ill_conditioned_b(f: Factors) -> tuple[list[Product], list[float], int]:
    return [Product(f.spectrum(D, 8, 1e-5), f.normal(8, K)) for _ in range(4)], _equal(4), 8


def _ill_conditioned_both(f: Factors) -> tuple[list[Product], list[float], int]:
    return [Product(f.spectrum(D, 8, 1e-5), f.spectrum(8, K, 1e-5)) for _ in range(4)], _equal(4), 8


def _ill_conditioned_against_each_other(f: Factors) -> tuple[list[Product], list[float], int]:
    return [Product(f.spectrum(D, 8, 1e-5), f.spectrum(8, K, 1e-5).flip(0)) for _ in range(4)], _equal(4), 8


def _badly_gauged(f: Factors) -> tuple[list[Product], list[float], int]:
    return [f.regauged(f.product(D, 8, K), 1e3) for _ in range(4)], _equal(4), 8


def _very_badly_gauged(f: Factors) -> tuple[list[Product], list[float], int]:
    return [f.regauged(f.product(D, 8, K), 1e5) for _ in range(4)], _equal(4), 8


def _just_started(f: Factors) -> tuple[list[Product], list[float], int]:
    return [f.fresh(D, 8, K, size=1e-4) for _ in range(4)], _equal(4), 8


def _shared_a(f: Factors) -> tuple[list[Product], list[float], int]:
    a = f.normal(8, K)
    return [Product(f.normal(D, 8), a) for _ in range(5)], _equal(5), 8


def _all_equal(f: Factors) -> tuple[list[Product], list[float], int]:
    return [f.product(D, 8, K)] * 5, _equal(5), 8


def _nearly_equal(f: Factors) -> tuple[list[Product], list[float], int]:
    first = f.product(D, 8, K)
    others = [Product(first.b + 1e-4 * f.normal(D, 8), first.a + 1e-4 * f.normal(8, K)) for _ in range(4)]
    return [first, *others], _equal(5), 8


def _some_zero(f: Factors) -> tuple[list[Product], list[float], int]:
    return [f.product(D, 8, K), f.fresh(D, 8, K), f.fresh(D, 8, K)], _equal(3), 8


def _rank_deficient(f: Factors) -> tuple[list[Product], list[float], int]:
    b, a = f.normal(D, 2), f.normal(2, K)
    return [Product(b @ f.normal(2, 8), f.normal(8, 2) @ a) for _ in range(3)], _equal(3), 8


def _more_rank_than_there_is(f: Factors) -> tuple[list[Product], list[float], int]:
    return [f.product(D, 4, K), f.product(D, 4, K)], [0.5, 0.5], 100


def _all_but_cancelling(f: Factors) -> tuple[list[Product], list[float], int]:
    first = f.product(D, 8, K)
    return [first, Product(first.b.clone(), first.a.clone()), f.product(D, 8, K)], [1.0, -1.0, 0.01], 8


CASES: Sequence[Case] = (
    _plain,
    _wide,
    _square,
    _mixed_ranks_and_scales,
    _one_neighbour,
    _sixteen_neighbours,
    _negative_weights,
    _ill_conditioned_b,
    _ill_conditioned_both,
    _ill_conditioned_against_each_other,
    _badly_gauged,
    _very_badly_gauged,
    _just_started,
    _shared_a,
    _all_equal,
    _nearly_equal,
    _some_zero,
    _rank_deficient,
    _more_rank_than_there_is,
    _all_but_cancelling,
)


# Every case on every path, but what the Gram path cannot do: that is a test of its own.
RUNS = [(case, path) for case in CASES for path in PATHS if (case, path) != (_very_badly_gauged, "gram")]


@pytest.mark.parametrize(("case", "path"), RUNS, ids=lambda value: getattr(value, "__name__", value).strip("_"))
def test_the_mix_is_the_best_product_of_its_rank(case: Case, path: Path) -> None:
    products, weights, rank = case(Factors(1))
    oracle = best(products, weights, rank)
    mixed = mix_products(products, weights, rank, 4.0, path=path)
    assert mixed.product.scale == 4.0
    assert mixed.product.b.shape == (products[0].shape[0], rank)
    assert mixed.product.a.shape == (rank, products[0].shape[1])
    assert (dense(mixed.product) - oracle.best).norm().item() <= 1e-6 * oracle.size
    tail = oracle.values[rank:].square().sum().sqrt().item()
    assert mixed.tail.item() == pytest.approx(tail, abs=1e-6 * oracle.size)


def test_the_fall_back_is_needed_and_taken() -> None:
    products, weights, rank = _very_badly_gauged(Factors(1))
    oracle = best(products, weights, rank)
    assert relative(mix_products(products, weights, rank, path="gram").product, oracle.best) > 1e-6
    assert relative(mix_products(products, weights, rank).product, oracle.best) <= 1e-6


def test_a_single_node_is_reproduced() -> None:
    product = Factors().product(D, 8, K, 3.0)
    assert relative(mix_products([product], [1.0], 8, 3.0).product, dense(product)) <= 2e-7


@pytest.mark.parametrize("path", PATHS)
def test_zero_products_mix_to_zero_factors(path: Path) -> None:
    factors = Factors()
    mixed = mix_products([factors.fresh(D, 8, K), factors.fresh(D, 4, K)], [0.5, 0.5], 8, path=path)
    assert not mixed.product.b.any()
    assert not mixed.product.a.any()
    assert mixed.tail.item() == 0


def test_zero_weights_mix_to_zero_factors() -> None:
    factors = Factors()
    mixed = mix_products([factors.product(D, 8, K), factors.product(D, 8, K)], [0.0, 0.0], 8)
    assert not mixed.product.b.any()
    assert mixed.tail.item() == 0


@pytest.mark.parametrize("path", PATHS)
def test_dead_directions_are_zeros_and_come_last(path: Path) -> None:
    products, weights, _ = _shared_a(Factors())  # the sum has rank 8
    mixed = mix_products(products, weights, 12, path=path).product
    assert (mixed.b.norm(dim=0) > 0).tolist() == [True] * 8 + [False] * 4
    assert (mixed.a.norm(dim=1) > 0).tolist() == [True] * 8 + [False] * 4


def test_the_factors_are_balanced() -> None:
    products, weights, rank = _just_started(Factors())
    mixed = mix_products(products, weights, rank, 4.0).product
    of_b, of_a = mixed.b.T @ mixed.b, mixed.a @ mixed.a.T
    assert torch.allclose(of_b, of_a, atol=1e-6 * of_b.norm().item())
    values = best(products, weights, rank).values[:rank]
    assert torch.allclose(of_b.diagonal().double(), values / 4.0, rtol=1e-5)


def test_low_precision_is_rounded_once() -> None:
    factors = Factors()
    for dtype, rounding in ((torch.bfloat16, 2**-8), (torch.float16, 2**-11)):
        products = [factors.product(D, 8, K, 2.0, dtype) for _ in range(3)]
        mixed = mix_products(products, _equal(3), 8, 2.0)
        assert mixed.product.b.dtype == dtype
        assert (dense(mixed.product) - best(products, _equal(3), 8).best).norm() <= rounding * mixed.product.norm()


def test_the_result_has_the_dtype_of_the_first() -> None:
    factors = Factors()
    products = [factors.product(D, 8, K), factors.product(D, 8, K, dtype=torch.bfloat16)]
    mixed = mix_products(products, [0.5, 0.5], 8).product
    assert mixed.b.dtype == torch.float32
    assert relative(mixed, best(products, [0.5, 0.5], 8).best) <= 1e-6


def test_float64_factors_are_mixed_to_float64_precision() -> None:
    factors = Factors()
    products = [factors.product(D, 8, K, dtype=torch.float64) for _ in range(3)]
    assert relative(mix_products(products, _equal(3), 8).product, best(products, _equal(3), 8).best) <= 1e-13


def test_a_batch_is_its_layers() -> None:
    factors = Factors()
    products = [Product(factors.normal(2, 3, D, 8), factors.normal(2, 3, 8, K), 2.0) for _ in range(3)]
    mixed = mix_products(products, [0.5, 0.7, -0.2], 8)
    assert mixed.tail.shape == (2, 3)
    for layer in ((0, 0), (1, 2)):
        singles = [Product(product.b[layer], product.a[layer], 2.0) for product in products]
        oracle = best(singles, [0.5, 0.7, -0.2], 8)
        assert relative(Product(mixed.product.b[layer], mixed.product.a[layer]), oracle.best) <= 1e-6
        assert mixed.tail[layer].item() == pytest.approx(oracle.values[8:].norm().item(), rel=1e-6)


def test_ill_conditioned_layers_of_a_batch_take_the_qr_path_and_the_others_do_not() -> None:
    factors = Factors()
    good, bad = factors.product(D, 8, K), factors.regauged(factors.product(D, 8, K), 1e5)
    batch = Product(torch.stack([good.b, bad.b]), torch.stack([good.a, bad.a]))
    auto, gram, qr = (mix_products([batch], [1.0], 8, path=path).product for path in PATHS)
    assert torch.equal(auto.b[0], gram.b[0])
    assert torch.equal(auto.b[1], qr.b[1])
    condition = (bad.b.norm(dim=0) * bad.a.norm(dim=1)).sum() / bad.norm()
    assert condition > CONDITION_LIMIT


def test_the_precision_the_process_has_set_for_float32_products_does_not_matter() -> None:
    products, weights, rank = _plain(Factors())
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        mixed = mix_products(products, weights, rank)
    finally:
        torch.set_float32_matmul_precision(before)
    assert relative(mixed.product, best(products, weights, rank).best) <= 1e-6


def test_small_pieces_change_nothing() -> None:
    products, weights, rank = _mixed_ranks_and_scales(Factors())
    whole, pieces = mix_products(products, weights, rank), mix_products(products, weights, rank, memory_bytes=1)
    assert relative(pieces.product, dense(whole.product)) <= 1e-6
    assert pieces.tail.item() == pytest.approx(whole.tail.item(), rel=1e-9)


def test_inputs_and_threads_are_left_as_they_were() -> None:
    products, weights, rank = _plain(Factors())
    copies = [(product.b.clone(), product.a.clone()) for product in products]
    products[0].b.requires_grad_()
    threads = torch.get_num_threads()
    mixed = mix_products(products, weights, rank).product
    assert torch.get_num_threads() == threads
    assert not mixed.b.requires_grad
    for product, (b, a) in zip(products, copies, strict=True):
        assert torch.equal(product.b, b)
        assert torch.equal(product.a, a)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("factor", ["b", "a"])
def test_what_is_not_finite_is_refused(bad: float, factor: str) -> None:
    factors = Factors()
    product = factors.product(D, 8, K)
    getattr(product, factor)[3, 5] = bad
    with pytest.raises(BadProduct) as refused:
        mix_products([factors.product(D, 8, K), product], [0.5, 0.5], 8)
    assert refused.value.reason == "product.not-finite"


@pytest.mark.parametrize(
    ("weights", "rank", "scale", "reason"),
    [
        ([1.0], 8, 1.0, "product.weights"),
        ([0.5, math.nan], 8, 1.0, "product.weights"),
        ([0.5, 0.5], 0, 1.0, "product.rank"),
        ([0.5, 0.5], 8, 0.0, "product.rank"),
        ([0.5, 0.5], 8, math.nan, "product.rank"),
    ],
)
def test_what_does_not_fit_is_refused(weights: list[float], rank: int, scale: float, reason: str) -> None:
    factors = Factors()
    with pytest.raises(BadProduct) as refused:
        mix_products([factors.product(D, 8, K), factors.product(D, 8, K)], weights, rank, scale)
    assert refused.value.reason == reason


def test_a_transposed_neighbour_is_refused() -> None:
    factors = Factors()
    with pytest.raises(BadProduct):
        mix_products([factors.product(D, 8, K), factors.product(K, 8, D)], [0.5, 0.5], 8)


def test_a_mix_in_inference_mode_leaves_nothing_that_the_next_cannot_use() -> None:
    """A thread keeps the memory that it works in; this one is new, and has none yet."""
    factors = Factors()
    products = [factors.product(D, 8, K) for _ in range(3)]

    def both() -> tuple[Product, Product]:
        with torch.inference_mode():
            first = mix_products(products, _equal(3), 8).product
        return first, mix_products(products, _equal(3), 8).product

    with ThreadPoolExecutor(1) as thread:
        first, second = thread.submit(both).result()
    assert torch.equal(first.b, second.b)
    assert torch.equal(first.a, second.a)
