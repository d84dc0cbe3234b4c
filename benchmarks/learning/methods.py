"""The methods that are compared: how snapshots are mixed, and what becomes of factors and optimizer after a mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.mixing import AdapterEdge, MixedAdapter, mix_adapters, mix_factors
from decaf_node.lowrank.product import Product

WORST_CONDITION = 1e2  # of a change of basis; with 1e4 the factors, in float32, lost a fiftieth of the product


@dataclass(frozen=True)
class Method:
    """A way to learn together.

    moments: the optimizer's; ``kept`` as they fall, though a mix moves the factors, or begun ``anew`` after each mix
    near_a:  the mixed product is split so that A is as near to the A before the mix as can be, and B takes the rest;
             else it is split evenly, and turned near to both (``lowrank.gauge``)
    whole:   ends of other ranks are mixed as they are, and not by what both can hold (``mix_adapters``)
    exchanges: after each round's local steps; all but the first are rounds without steps
    wire:    what is sent: as it is, or rounded, each direction and each row of a head by its own scale (``int8``)
    """

    mixing: Literal["local", "products", "factors", "b alone"]
    moments: Literal["kept", "anew"] = "kept"
    near_a: bool = False
    whole: bool = False
    exchanges: int = 1
    wire: Literal["float32", "bfloat16", "int8"] = "float32"

    def mix(self, now: Adapter, edges: Sequence[AdapterEdge]) -> MixedAdapter:
        if self.mixing != "products":
            return mix_factors(now, edges, frozen_a=self.mixing == "b alone")
        mixed = mix_adapters(now, [of_one_rank(edge) for edge in edges] if self.whole else edges)
        return replace(mixed, adapter=with_near_a(mixed.adapter, now)) if self.near_a else mixed

    def sent(self, adapter: Adapter) -> Adapter:
        """Return what a neighbour reads of it; the same object where nothing is rounded."""
        return adapter if self.wire == "float32" else rounded(adapter, self.wire)


METHODS = {
    "local": Method("local"),
    "dlora": Method("factors"),
    "dlora, moments anew": Method("factors", "anew"),
    "dlora-fa": Method("b alone"),
    "decaf": Method("products"),
    "decaf, moments anew": Method("products", "anew"),
    "decaf, ranks mixed whole": Method("products", whole=True),
    "decaf, 2 exchanges": Method("products", exchanges=2),
    "decaf, 4 exchanges": Method("products", exchanges=4),
    "decaf, int8": Method("products", wire="int8"),
    "decaf, int8, 4 exchanges": Method("products", exchanges=4, wire="int8"),
    "decaf, bfloat16, 2 exchanges": Method("products", exchanges=2, wire="bfloat16"),
    "dlora, 4 exchanges": Method("factors", exchanges=4),
    "decaf, near A": Method("products", near_a=True),
    "decaf, near A, moments anew": Method("products", "anew", near_a=True),
}


def with_near_a(adapter: Adapter, old: Adapter) -> Adapter:
    """Return the same products, each A the least-squares projection of the old one on the new rows.

    ``A' = T A`` and ``B' = B T^-1`` with ``T = A_old A^T (A A^T)^-1``; a layer where T is nearly singular stays.
    """
    products = {name: _near(product, old.products[name]) for name, product in adapter.products.items()}
    return Adapter(products, adapter.tensors)


def _near(product: Product, old: Product) -> Product:
    a, b, old_a = (tensor.to(torch.float64) for tensor in (product.a, product.b, old.a))
    change = old_a @ torch.linalg.pinv(a)
    if not torch.linalg.cond(change) < WORST_CONDITION:
        return product
    moved = torch.linalg.solve(change.mT, b.mT).mT
    return Product(moved.to(product.b.dtype), (change @ a).to(product.a.dtype), product.scale)


def rounded(adapter: Adapter, wire: str) -> Adapter:
    """Return the adapter as it comes out of the wire."""
    one = _to_bfloat16 if wire == "bfloat16" else _to_int8
    products = {
        name: Product(one(product.b.mT).mT, one(product.a), product.scale) for name, product in adapter.products.items()
    }
    return Adapter(products, {name: one(tensor) for name, tensor in adapter.tensors.items()})


def _to_bfloat16(rows: Tensor) -> Tensor:
    return rows.to(torch.bfloat16).to(rows.dtype)


def _to_int8(rows: Tensor) -> Tensor:
    scale = rows.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny) / 127
    return (rows / scale).round() * scale


def of_one_rank(edge: AdapterEdge) -> AdapterEdge:
    """Fill the end of the lower rank up with zeros, so that nothing of the other is cut."""
    return AdapterEdge(_filled(edge.own, edge.theirs), _filled(edge.theirs, edge.own), edge.weight)


def _filled(adapter: Adapter, other: Adapter) -> Adapter:
    products = {}
    for name, product in adapter.products.items():
        missing = max(0, other.products[name].rank - product.rank)
        b, a = pad(product.b, (0, missing)), pad(product.a, (0, 0, 0, missing))
        products[name] = Product(b, a, product.scale)
    return Adapter(products, adapter.tensors)
