from __future__ import annotations

import pytest
import torch

from decaf_node.errors import BadData
from decaf_node.lowrank.product import BadProduct, Product, add_products
from tests.lowrank.oracle import Factors, dense


def test_the_norm_is_that_of_the_dense_matrix() -> None:
    product = Factors().product(30, 4, 17, scale=-2.5)
    assert product.norm().item() == pytest.approx(dense(product).norm().item(), rel=1e-12)
    assert product.norm().dtype == torch.float64


def test_distance_and_inner_product_of_other_ranks_and_scales() -> None:
    factors = Factors()
    x, y = factors.product(30, 4, 17, scale=0.5), factors.product(30, 6, 17, scale=3.0)
    assert x.distance(y).item() == pytest.approx((dense(x) - dense(y)).norm().item(), rel=1e-12)
    assert x.inner(y).item() == pytest.approx((dense(x) * dense(y)).sum().item(), rel=1e-12)


def test_the_distance_of_equal_products_in_other_factors_is_nothing() -> None:
    factors = Factors()
    product = factors.product(30, 4, 17)
    double = Product(product.b.double(), product.a.double())
    assert product.distance(product).item() <= 2e-8 * product.norm().item()
    assert double.distance(factors.regauged(double, 10.0)).item() <= 1e-7 * product.norm().item()


def test_one_figure_a_layer() -> None:
    factors = Factors()
    x = Product(factors.normal(3, 2, 30, 4), factors.normal(3, 2, 4, 17), 2.0)
    y = Product(factors.normal(3, 2, 30, 5), factors.normal(3, 2, 5, 17))
    assert x.norm().shape == x.distance(y).shape == x.inner(y).shape == (3, 2)
    layer = Product(x.b[1, 0], x.a[1, 0], 2.0)
    assert x.norm()[1, 0].item() == pytest.approx(dense(layer).norm().item(), rel=1e-12)


def test_a_norm_in_blocks_is_the_norm() -> None:
    product = Factors().product(70_000, 8, 5)  # more than one block of rows
    assert product.norm().item() == pytest.approx(dense(product).norm().item(), rel=1e-12)


def test_the_sum_is_exact() -> None:
    factors = Factors()
    x, y = factors.product(30, 4, 17, scale=0.5), factors.product(30, 6, 17, scale=3.0)
    total = add_products([x, y], [0.25, -1.5])
    assert total.rank == 10
    assert torch.allclose(dense(total), 0.25 * dense(x) - 1.5 * dense(y), atol=1e-5)


def test_dense_is_scale_b_a() -> None:
    product = Product(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0, 5.0]]), 2.0)
    assert product.dense().tolist() == [[6.0, 8.0, 10.0], [12.0, 16.0, 20.0]]
    assert (product.shape, product.rank, product.batch) == ((2, 3), 1, ())


@pytest.mark.parametrize(
    ("b", "a", "scale", "reason"),
    [
        (torch.zeros(4, 2), torch.zeros(3, 5), 1.0, "product.shape"),
        (torch.zeros(4), torch.zeros(4), 1.0, "product.shape"),
        (torch.zeros(2, 4, 2), torch.zeros(3, 2, 5), 1.0, "product.shape"),
        (torch.zeros(4, 0), torch.zeros(0, 5), 1.0, "product.empty"),
        (torch.zeros(4, 2), torch.zeros(2, 5).double(), 1.0, "product.dtype"),
        (torch.zeros(4, 2, dtype=torch.int32), torch.zeros(2, 5, dtype=torch.int32), 1.0, "product.dtype"),
        (torch.zeros(4, 2), torch.zeros(2, 5), float("nan"), "product.scale"),
    ],
)
def test_what_is_no_product_is_refused(b: torch.Tensor, a: torch.Tensor, scale: float, reason: str) -> None:
    with pytest.raises(BadProduct) as refused:
        Product(b, a, scale)
    assert refused.value.reason == reason
    assert isinstance(refused.value, BadData)


def test_products_of_other_shapes_are_not_compared() -> None:
    factors = Factors()
    with pytest.raises(BadProduct, match=r"\(30, 17\).*\(17, 30\)"):
        factors.product(30, 4, 17).distance(factors.product(17, 4, 30))
    with pytest.raises(BadProduct, match="no product"):
        add_products([], [])
