"""The plain reference: the dense weighted sum in float64, cut by ``torch.linalg.svd``; and factors to try it on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decaf_node.lowrank.product import Product


@dataclass(frozen=True)
class Best:
    """The dense sum, the best matrix of some rank for it, all singular values, and ``sum |w| ||p||``."""

    total: Tensor
    best: Tensor
    values: Tensor
    size: float


def dense(product: Product) -> Tensor:
    return product.scale * (product.b.double() @ product.a.double())


def best(products: Sequence[Product], weights: Sequence[float], rank: int) -> Best:
    total = torch.stack([weight * dense(product) for weight, product in zip(weights, products, strict=True)]).sum(0)
    u, values, v = torch.linalg.svd(total, full_matrices=False)
    size = sum(abs(weight) * dense(product).norm().item() for weight, product in zip(weights, products, strict=True))
    return Best(total, (u[..., :rank] * values[..., None, :rank]) @ v[..., :rank, :], values, size)


def relative(product: Product, matrix: Tensor) -> float:
    """Return the relative Frobenius distance of a product from a dense matrix that is not zero."""
    return float((dense(product) - matrix).norm() / matrix.norm())


class Factors:
    """Random factors from one seed."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def product(self, d: int, r: int, k: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Product:
        return Product(self.normal(d, r).to(dtype), self.normal(r, k).to(dtype), scale)

    def fresh(self, d: int, r: int, k: int, size: float = 0.0) -> Product:
        """Return a LoRA product as training starts it: A uniform within 1/sqrt(k), B small or zero."""
        a = (2 * torch.rand(r, k, generator=self.generator) - 1) / k**0.5
        return Product(size * self.normal(d, r), a, 2.0)

    def orthogonal(self, side: int) -> Tensor:
        turn: Tensor = torch.linalg.qr(self.normal(side, side).double()).Q
        return turn

    def spectrum(self, rows: int, columns: int, lowest: float) -> Tensor:
        """Return a factor with singular values from 1 down to ``lowest``."""
        q: Tensor = torch.linalg.qr(self.normal(max(rows, columns), min(rows, columns)).double()).Q
        factor = q * torch.logspace(0, math.log10(lowest), min(rows, columns)).double()
        return (factor if rows >= columns else factor.T).float().contiguous()

    def regauged(self, product: Product, condition: float) -> Product:
        """Return the same product in factors that differ by a random matrix of that condition number."""
        r = product.rank
        values = torch.logspace(0, -math.log10(condition), r).double()
        left, right = self.orthogonal(r), self.orthogonal(r)
        b = product.b.double() @ left * values @ right
        a = right.T @ ((left.T @ product.a.double()) / values[:, None])
        return Product(b.to(product.b.dtype), a.to(product.a.dtype), product.scale)
