"""A LoRA product in factors: what can be known of ``scale * b @ a`` without the (d, k) matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decaf_node.errors import BadData
from decaf_node.lowrank.gram import gram


class BadProduct(BadData):
    """Factors, weights or ranks that do not fit each other, or are not finite."""


@dataclass(frozen=True)
class Product:
    """``scale * b @ a``, one product or a batch of one shape.

    Shapes:  b (..., d, r), a (..., r, k), the same leading dimensions (layers) in both.
    Dtypes:  any floating one, the same in both; all that is computed from it is float64.
    Raises:  BadProduct if shapes, dtypes or devices do not fit, or the scale is not finite.
    """

    b: Tensor
    a: Tensor
    scale: float = 1.0

    def __post_init__(self) -> None:
        b, a = self.b, self.a
        if b.dim() < 2 or b.dim() != a.dim() or b.shape[:-2] != a.shape[:-2] or b.shape[-1] != a.shape[-2]:
            raise BadProduct("product.shape", f"Factors of shapes {tuple(b.shape)} and {tuple(a.shape)} do not fit.")
        if 0 in b.shape or 0 in a.shape:
            raise BadProduct("product.empty", f"A factor of shape {tuple(b.shape)} or {tuple(a.shape)} is empty.")
        if not b.is_floating_point() or b.dtype != a.dtype or b.device != a.device:
            raise BadProduct(
                "product.dtype",
                f"Factors of dtypes {b.dtype} and {a.dtype}, on {b.device} and {a.device}, are not one product.",
            )
        if not math.isfinite(self.scale):
            raise BadProduct("product.scale", f"A scale of {self.scale} is not a number to multiply with.")

    @property
    def rank(self) -> int:
        return self.b.shape[-1]

    @property
    def shape(self) -> tuple[int, int]:
        """(d, k), the shape of one dense product."""
        return self.b.shape[-2], self.a.shape[-1]

    @property
    def batch(self) -> torch.Size:
        return self.b.shape[:-2]

    def norm(self) -> Tensor:
        """Return the Frobenius norm, one a layer: ``||XY||^2 = tr((X^T X)(Y Y^T))``, to 2e-8 of ||X|| ||Y||."""
        squared = (gram([self.b], -1) * gram([self.a], -2)).sum((-2, -1))
        return abs(self.scale) * squared.clamp_min(0).sqrt()

    def inner(self, other: Product) -> Tensor:
        """Return the Frobenius inner product ``<self, other>``, one a layer. Ranks may differ."""
        check_same_shape([self, other])
        left = gram([self.b, other.b], -1)[..., : self.rank, self.rank :]
        right = gram([self.a, other.a], -2)[..., : self.rank, self.rank :]
        return self.scale * other.scale * (left * right).sum((-2, -1))

    def distance(self, other: Product) -> Tensor:
        """Return the Frobenius norm of ``self - other``, one a layer, to 2e-8 of the factors' norms.

        It does not depend on how either product is split into factors. Ranks and scales may differ.
        """
        check_same_shape([self, other])
        left, right = gram([self.b, other.b], -1), gram([self.a, other.a], -2)
        signs = [self.scale] * self.rank + [-other.scale] * other.rank
        sign = torch.tensor(signs, dtype=torch.float64, device=left.device)
        return (left * right * sign[:, None] * sign).sum((-2, -1)).clamp_min(0).sqrt()

    def dense(self) -> Tensor:
        """Return the (..., d, k) matrix in the factors' dtype. For tests and benchmarks: elsewhere it is too large."""
        return self.scale * (self.b @ self.a)


def add_products(products: Sequence[Product], weights: Sequence[float]) -> Product:
    """Return ``sum(w * p)`` by stacking: its rank is the sum of the ranks, its scale 1, its dtype that of the first."""
    check_same_shape(products)
    own = products[0].b
    b = torch.cat([weight * p.scale * p.b.to(own) for p, weight in zip(products, weights, strict=True)], -1)
    return Product(b, torch.cat([p.a.to(own) for p in products], -2))


def check_same_shape(products: Sequence[Product]) -> None:
    """Raise BadProduct if the products cannot be summed: none, another (d, k), or other layers.

    They may lie on several devices: the first one's is worked on.
    """
    if not products:
        raise BadProduct("product.none", "There is no product to work on.")
    first = products[0]
    for other in products[1:]:
        if other.shape != first.shape or other.batch != first.batch:
            raise BadProduct(
                "product.mismatch",
                f"Products of {tuple(first.batch)} layers of {first.shape} and of {tuple(other.batch)} layers of "
                f"{other.shape} cannot be mixed.",
            )
