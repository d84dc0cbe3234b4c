"""The methods that are compared: how snapshots are mixed, and what becomes of factors and optimizer after a mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.int8 import decode, encode, is_coded, scales_of
from decaf_node.lowrank.mixing import AdapterEdge, MixedAdapter, mix_adapters, mix_factors
from decaf_node.lowrank.product import Product

WORST_CONDITION = 1e2  # of a change of basis; with 1e4 the factors, in float32, lost a fiftieth of the product

Mixing = Literal["local", "centralized", "products", "factors", "b alone"]
MIXINGS: dict[str, Mixing] = {
    "local": "local",
    "centralized": "centralized",
    "decaf": "products",
    "dlora": "factors",
    "dlora-fa": "b alone",
}


@dataclass(frozen=True)
class Method:
    """A way to learn together.

    moments: the optimizer's; ``kept`` as they fall, though a mix moves the factors, or begun ``anew`` after each mix
    near_a:  the mixed product is split so that A is as near to the A before the mix as can be, and B takes the rest;
             else it is split evenly, and turned near to both (``lowrank.gauge``)
    whole:   ends of other ranks are mixed as they are, and not by what both can hold (``mix_adapters``)
    exchanges: after each round's local steps; all but the first are rounds without steps
    wire:    what is sent, as in ``mixing.wire``
    momentum: each mix goes on by this part of the way that the node went in the round before (heavy ball)
    balanced: the loss weighs labels as if a node had as many examples of each: logits are raised by the logarithm of
             how frequent a label is in the node's own data (logit adjustment, arXiv 2007.07314, FedLC arXiv 2209.00189)
    absent:  where labels are balanced, those that are not here count as so many times as frequent as one that is
    own_rows: rows of the head are trained only by who has examples of their label
    """

    mixing: Mixing
    moments: Literal["kept", "anew"] = "kept"
    near_a: bool = False
    whole: bool = False
    exchanges: int = 1
    wire: Literal["float32", "bfloat16", "int8"] = "float32"
    momentum: float = 0.0
    balanced: bool = False
    absent: float = 0.0
    own_rows: bool = False

    def mix(self, now: Adapter, edges: Sequence[AdapterEdge]) -> MixedAdapter:
        if self.mixing != "products":
            return mix_factors(now, edges, frozen_a=self.mixing == "b alone")
        mixed = mix_adapters(now, [of_one_rank(edge) for edge in edges] if self.whole else edges)
        return replace(mixed, adapter=with_near_a(mixed.adapter, now)) if self.near_a else mixed

    def sent(self, adapter: Adapter) -> Adapter:
        """Return what a neighbour reads of it; the same object where nothing is rounded."""
        return adapter if self.wire == "float32" else rounded(adapter, self.wire)


def method_of(name: str) -> Method:
    """Return what a name means: how it mixes, then what is unlike the paper, as in "decaf, int8, 4 exchanges".

    Also: moments anew, near A, ranks mixed whole, bfloat16, momentum NUMBER, balanced, absent NUMBER, own rows.
    Raises ValueError.
    """
    mixing, *options = name.split(", ")
    if mixing not in MIXINGS:
        raise ValueError(f"{mixing} is none of {', '.join(MIXINGS)}")
    method = Method(MIXINGS[mixing])
    for option in options:
        match option.split():
            case [count, "exchanges"]:
                method = replace(method, exchanges=int(count))
            case ["momentum", number]:
                method = replace(method, momentum=float(number))
            case ["int8" | "bfloat16" as wire]:
                method = replace(method, wire=wire)
            case ["balanced"]:
                method = replace(method, balanced=True)
            case ["absent", number]:
                method = replace(method, absent=float(number))
            case ["own", "rows"]:
                method = replace(method, own_rows=True)
            case ["moments", "anew"]:
                method = replace(method, moments="anew")
            case ["near", "A"]:
                method = replace(method, near_a=True)
            case ["ranks", "mixed", "whole"]:
                method = replace(method, whole=True)
            case _:
                raise ValueError(f"{option} says nothing of how to learn together")
    return method


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
    products = {
        name: Product(_rounded(product.b, wire, 1), _rounded(product.a, wire, 0), product.scale)
        for name, product in adapter.products.items()
    }
    return Adapter(products, {name: _rounded(tensor, wire, 0) for name, tensor in adapter.tensors.items()})


def _rounded(tensor: Tensor, wire: str, axis: int) -> Tensor:
    if wire == "bfloat16":
        return tensor.to(torch.bfloat16).to(tensor.dtype)
    if not is_coded(tensor.shape):
        return tensor
    scales = scales_of(tensor, axis)
    return decode(encode(tensor, scales), scales)


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
