"""How coarse the numbers of an adapter may be: steps by which rounding adds a chosen error to the whole of it.

A number of a factor counts in the product as much as the other factor's direction is long, so its step is
``D / |other direction|``, with one ``D`` for all layers. Then each number adds the same error, a direction weaker than
it becomes zeros, and most others are a few small numbers, which a file deflates (``codec``). Factors split into
singular directions have few strong ones, and want the fewest bits. Sources: reverse water-filling (Cover and Thomas,
"Elements of Information Theory", 10.3.3); a uniform step and an entropy code lose a quarter of a bit to the best there
is (Gish and Pierce, "Asymptotically efficient quantizing", 1968).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from decaf_node.lowrank.adapter import Adapter, norm
from decaf_node.lowrank.mix import mix_products, on_threads
from decaf_node.lowrank.product import Product


def in_singular_directions(adapter: Adapter) -> Adapter:
    """Return the same adapter on the CPU, each product split evenly into its singular directions, strongest first."""
    products = on_threads(_split, list(adapter.products.values()))
    return Adapter(dict(zip(adapter.products, products, strict=True)), adapter.tensors)


def _split(product: Product) -> Product:
    b, a = (factor.detach().to("cpu", torch.float32) for factor in (product.b, product.a))
    return mix_products([Product(b, a, product.scale)], [1.0], product.rank, product.scale).product


def steps_of(adapter: Adapter, error: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Return for each layer the steps of B's columns (1, r) and of A's rows (r, 1), in float32.

    To round every number to a whole multiple of its step adds about ``error`` times the adapter's norm, at most;
    numbers are taken for independent. A direction that is zero in one factor has any step in the other.
    """
    numbers = sum(product.b.numel() + product.a.numel() for product in adapter.products.values())
    step = error * norm(adapter) * math.sqrt(12 / numbers) if numbers else 0.0
    return {
        name: (
            _step(step / product.scale, product.a.norm(dim=1)[None, :]),
            _step(step / product.scale, product.b.norm(dim=0)[:, None]),
        )
        for name, product in adapter.products.items()
    }


def _step(step: float, lengths: Tensor) -> Tensor:
    largest = torch.finfo(torch.float32).max
    return (abs(step) / lengths.double()).nan_to_num(0.0).clamp_max(largest).float()
