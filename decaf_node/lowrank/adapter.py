"""A whole adapter: named products, plainly averaged tensors, and what is measured of one, two or several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decaf_node.lowrank.mix import cut
from decaf_node.lowrank.product import BadProduct, Product


@dataclass(frozen=True)
class Adapter:
    """products: layer name -> b (d, r), a (r, k), scale; tensors: name -> what is averaged plainly (heads, norms)."""

    products: Mapping[str, Product]
    tensors: Mapping[str, Tensor]


def distance(x: Adapter, y: Adapter) -> float:
    """Return the Frobenius norm of ``x - y`` over all layers' products; plainly averaged tensors do not count."""
    check_same([x, y])
    return over_layers([product.distance(y.products[name]) for name, product in x.products.items()])


def common_distance(x: Adapter, y: Adapter) -> float:
    """Return the Frobenius norm, over all layers' products, of what an edge between the two mixes (see ``_common``).

    Where a layer has the same rank at both ends it is their distance; else of what both can hold.
    """
    check_same([x, y])
    pairs = [(product, y.products[name]) for name, product in x.products.items()]
    return over_layers([cut(one, other.rank).distance(cut(other, one.rank)) for one, other in pairs])


def factor_distance(x: Adapter, y: Adapter) -> float:
    """Return the Frobenius norm of the differences of all A and all B: of what ``mix_factors`` mixes.

    It depends on how the products are split into factors, as that mix does. Ranks must be the same; scales do not
    count.
    """
    check_same([x, y])
    pairs = [(product, y.products[name]) for name, product in x.products.items()]
    return _over_tensors([one.b - other.b for one, other in pairs] + [one.a - other.a for one, other in pairs])


def plain_distance(x: Adapter, y: Adapter) -> float:
    """Return the Frobenius norm of ``x - y`` over all plainly averaged tensors."""
    check_same([x, y])
    return _over_tensors([tensor - y.tensors[name] for name, tensor in x.tensors.items()])


def norm(adapter: Adapter) -> float:
    """Return the Frobenius norm over all layers' products."""
    return over_layers([product.norm() for product in adapter.products.values()])


def factor_norm(adapter: Adapter) -> float:
    """Return the Frobenius norm of all A and all B."""
    return _over_tensors([factor for product in adapter.products.values() for factor in (product.b, product.a)])


def plain_norm(adapter: Adapter) -> float:
    """Return the Frobenius norm over all plainly averaged tensors."""
    return _over_tensors(list(adapter.tensors.values()))


def is_finite(adapter: Adapter) -> bool:
    """Say whether every number of the adapter is finite."""
    tensors = [*adapter.tensors.values()]
    for product in adapter.products.values():
        tensors += [product.b, product.a]
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def medoid(adapters: Sequence[Adapter]) -> int:
    """Return the index of the adapter with the least sum of distances to the others; of equals the first.

    Those that are not finite do not take part. Raises BadProduct if none is left.
    """
    usable = [i for i, adapter in enumerate(adapters) if math.isfinite(norm(adapter))]
    if not usable:
        raise BadProduct("adapter.none", "There is no adapter with finite numbers to choose from.")
    apart = {(i, j): distance(adapters[i], adapters[j]) for i in usable for j in usable if i < j}
    return min(usable, key=lambda i: sum(away for pair, away in apart.items() if i in pair))


def over_layers(figures: Sequence[Tensor]) -> float:
    """Return the root of the sum of squares, with one wait for the device."""
    if not figures:
        return 0.0
    flat = [figure.reshape(-1).to(figures[0].device) for figure in figures]
    return float(torch.cat(flat).square().sum().sqrt())


def _over_tensors(tensors: Sequence[Tensor]) -> float:
    """Return the Frobenius norm of all of them together, summed in float64."""
    return over_layers([torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64) for tensor in tensors])


def check_same(adapters: Sequence[Adapter]) -> None:
    first = adapters[0]
    for other in adapters[1:]:
        if first.products.keys() != other.products.keys() or first.tensors.keys() != other.tensors.keys():
            raise BadProduct("adapter.names", "Two adapters do not have the same layers and tensors; they cannot mix.")
        for name, product in first.products.items():
            if other.products[name].shape != product.shape:
                raise BadProduct("adapter.shape", f"Layer {name} does not have the same shape in two adapters.")
        for name, tensor in first.tensors.items():
            if other.tensors[name].shape != tensor.shape:
                raise BadProduct("adapter.shape", f"Tensor {name} does not have the same shape in two adapters.")
