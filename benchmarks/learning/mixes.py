"""What methods do to adapters beside the kernel: sum and cut them, split them anew, round them, fill them up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Union

import torch
from torch import Tensor
from torch.nn.functional import pad

from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.codec import read_snapshot, size_of, write_snapshot
from decaf_node.lowrank.int8 import LARGEST, decode, encode, is_coded, scales_of
from decaf_node.lowrank.mix import mix_products
from decaf_node.lowrank.mixing import AdapterEdge
from decaf_node.lowrank.product import Product
from decaf_node.snapshot import Wire

Format = Union[Wire, Literal["int4", "int2"]]  # noqa: UP007 - a value, for Python 3.10 too
BITS = {"int4": 4, "int2": 2}
DIGEST = "0" * 64
WORST_CONDITION = 1e2  # of a change of basis; with 1e4 the factors, in float32, lost a fiftieth of the product


def total(parts: Sequence[tuple[float, Adapter]], times: int = 1) -> Adapter:
    """Return the best adapter for the weighted sum, of so many times the rank of the first; factors are not near any.

    Tensors that are averaged plainly are summed with the same weights.
    """
    weights, adapters = [weight for weight, _ in parts], [adapter for _, adapter in parts]
    products = {
        name: mix_products(
            [adapter.products[name] for adapter in adapters], weights, times * first.rank, first.scale
        ).product
        for name, first in adapters[0].products.items()
    }
    tensors = {
        name: torch.stack([weight * adapter.tensors[name] for weight, adapter in parts]).sum(0)
        for name in adapters[0].tensors
    }
    return Adapter(products, tensors)


def pulls(edges: Sequence[AdapterEdge]) -> list[tuple[float, Adapter]]:
    """Return the parts of ``sum(w * (theirs - own))``."""
    return [part for edge in edges for part in ((edge.weight, edge.theirs), (-edge.weight, edge.own))]


def left_over(now: Adapter, edges: Sequence[AdapterEdge], mixed: Adapter, times: int) -> Adapter:
    """Return what a mix has cut: the best adapter for ``now + sum(w * (theirs - own)) - mixed``, as ``total``."""
    return total([(1.0, now), *pulls(edges), (-1.0, mixed)], times)


def plus(adapter: Adapter) -> AdapterEdge:
    """Return the edge by which a mix adds the adapter as it is."""
    products = {name: Product(p.b.new_zeros(p.b.shape), p.a, p.scale) for name, p in adapter.products.items()}
    nothing = Adapter(products, {name: torch.zeros_like(tensor) for name, tensor in adapter.tensors.items()})
    return AdapterEdge(nothing, adapter, 1.0)


def chebyshev(contraction: float, exchanges: int) -> list[float]:
    """Return the weights of the exchanges of a round, ``x_k+1 = w_k+1 W x_k + (1 - w_k+1) x_k-1``.

    contraction: the largest absolute eigenvalue of W but 1. After k exchanges what is not the mean has shrunk by
    ``1 / T_k(1 / contraction)`` or more, T_k Chebyshev's polynomial; plain ones shrink it by ``contraction ** k``.
    Source: Golub and Varga, "Chebyshev semi-iterative methods", 1961; for gossip arXiv 1702.08704.
    """
    weights = [1.0, 1.0 / (1.0 - contraction**2 / 2)]
    while len(weights) < exchanges:
        weights.append(1.0 / (1.0 - contraction**2 * weights[-1] / 4))
    return weights[:exchanges]


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


def with_drawn_a(adapter: Adapter, seed: int) -> Adapter:
    """Return the adapter with an A drawn anew, as PEFT draws it: from U(-1/sqrt(k), 1/sqrt(k)), k its columns."""
    generator = torch.Generator().manual_seed(seed)
    products = {}
    for name, product in adapter.products.items():
        drawn = 2 * torch.rand(product.a.shape, generator=generator) - 1
        products[name] = Product(product.b, (drawn / product.shape[1] ** 0.5).to(product.a), product.scale)
    return Adapter(products, adapter.tensors)


def rounded(adapter: Adapter, wire: str) -> Adapter:
    """Return the adapter as it comes out of the wire."""
    if wire == "compact":
        return through_file(adapter)[1]
    products = {
        name: Product(_rounded(product.b, wire, 1), _rounded(product.a, wire, 0), product.scale)
        for name, product in adapter.products.items()
    }
    return Adapter(products, {name: _rounded(tensor, wire, 0) for name, tensor in adapter.tensors.items()})


def plus_rounded(before: Adapter, adapter: Adapter, wire: str) -> Adapter:
    """Return ``before`` and the way from there to the adapter, factor by factor, as that comes out of the wire."""

    def moved(old: Tensor, new: Tensor, axis: int) -> Tensor:
        return old + _rounded(new - old, wire, axis)

    products = {}
    for name, new in adapter.products.items():
        old = before.products[name]
        products[name] = Product(moved(old.b, new.b, 1), moved(old.a, new.a, 0), new.scale)
    return Adapter(products, {name: moved(before.tensors[name], new, 0) for name, new in adapter.tensors.items()})


def _rounded(tensor: Tensor, wire: str, axis: int) -> Tensor:
    if wire == "bfloat16":
        return tensor.to(torch.bfloat16).to(tensor.dtype)
    if not is_coded(tensor.shape):
        return tensor
    scales = scales_of(tensor, axis)
    if wire == "int8":
        return decode(encode(tensor, scales), scales)
    wider = scales * (LARGEST / float(2 ** (BITS[wire] - 1) - 1))
    return (tensor / wider).round() * wider


def through_file(adapter: Adapter) -> tuple[int, Adapter]:
    """Return the bytes of its snapshot in compact, and what is read of it."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "snapshot")
        write_snapshot(path, adapter, wire="compact", schema=DIGEST, base=DIGEST, round=1)
        return path.stat().st_size, read_snapshot(path)[1]


def size_on(wire: Format, adapter: Adapter) -> int:
    """Return the bytes of its snapshot; those in few bits are as in int8, of that many bits."""
    if wire == "compact":
        return through_file(adapter)[0]
    if wire != "int4" and wire != "int2":
        return size_of(adapter, wire=wire, schema=DIGEST, base=DIGEST, round=1)
    factors = [factor for product in adapter.products.values() for factor in (product.b, product.a)]
    coded = sum(tensor.numel() for tensor in (*factors, *adapter.tensors.values()) if is_coded(tensor.shape))
    return size_on("int8", adapter) - coded * (8 - BITS[wire]) // 8


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
