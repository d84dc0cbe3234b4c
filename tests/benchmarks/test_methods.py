"""Methods that the learning bench has beside the product's own."""

from __future__ import annotations

import pytest
import torch

from benchmarks.learning.methods import Method, method_of, with_near_a
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.product import Product


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


def test_a_name_says_what_is_unlike_the_paper() -> None:
    assert method_of("decaf") == Method("products")
    assert method_of("dlora, moments anew, near A") == Method("factors", "anew", near_a=True)
    said = "decaf, int8, 4 exchanges, momentum 0.5, balanced, ranks mixed whole"
    assert method_of(said) == Method("products", "kept", False, True, 4, "int8", 0.5, True)
    said = "decaf, balanced, absent 0.1, own rows"
    assert method_of(said) == Method("products", balanced=True, absent=0.1, own_rows=True)


@pytest.mark.parametrize("name", ["", "fedavg", "decaf, four exchanges", "decaf, 4 rounds", "decaf,int8"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"none of|says nothing|invalid literal"):
        method_of(name)
