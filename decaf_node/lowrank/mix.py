"""The weighted sum of products, cut back to the best one of rank r, without forming a (d, k) matrix.

The sum is ``L @ R``, ``L = [b_1 .. b_n]`` (d, m) and ``R = [a_1; ..; a_n]`` (m, k) with the weights and scales in
their columns and rows, m = sum(r_j). Two ways lead to its SVD ``U S V^T`` without a matrix larger than (m, m):

- by its Gram matrices (fast), with ``root^T root = L^T L`` by Cholesky: ``root (R R^T) root^T = W S^2 W^T`` is an
  eigenvalue problem, and the factors are ``L (R R^T root^T W S^-3/2)`` and ``(S^-1/2 W^T root) R``;
- by a QR decomposition of both stacks (exact): the SVD of the core ``root_l root_r^T = W S Z^T``, and the factors
  ``L (root_r^T Z S^-1/2)`` and ``(S^-1/2 W^T root_l) R``.

The small matrices are solved on the CPU: CUDA's batched decompositions are loops over single ones (pytorch issues
175585, 174674).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from decaf_node.lowrank.gram import MEMORY_BYTES, combined, gram, stacked
from decaf_node.lowrank.product import BadProduct, Product, check_same_shape

CONDITION_LIMIT = 32.0
EPSILON = torch.finfo(torch.float64).eps
# Added to the diagonal of a Gram matrix, relative to its trace: above its rounding, so that Cholesky goes through.
SHIFT = 4 * EPSILON

Path = Literal["auto", "gram", "qr"]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Mixed:
    """A product, and per layer its Frobenius norm before it was rounded, and that of what the truncation has cut.

    Float64, on the CPU.
    """

    product: Product
    norm: Tensor
    tail: Tensor


@dataclass(frozen=True)
class Stack:
    """A weighted sum in factors, with the Gram matrices (..., m, m) of its bare factors in float64 on the CPU."""

    products: Sequence[Product]
    weights: Sequence[float]
    gram_b: Tensor
    gram_a: Tensor

    @property
    def batch(self) -> torch.Size:
        """Return the leading dimensions: layers."""
        return self.gram_b.shape[:-2]

    def spread(self, values: Sequence[float]) -> Tensor:
        """Return one value a product as one value a column of the stack."""
        ranks = [product.rank for product in self.products]
        return torch.tensor(values, dtype=torch.float64).repeat_interleave(torch.tensor(ranks))


@dataclass(frozen=True)
class Core:
    """The SVD ``U S V^T`` of a stack: ``[b_1 .. b_n] @ into_b = U sqrt(S)``, ``into_a @ [a_1; ..; a_n] = sqrt(S) V^T``.

    values are all m singular values; alive says which of the first ones rise above rounding (the other
    coefficients are zeros). Float64, on the CPU.
    """

    into_b: Tensor
    into_a: Tensor
    values: Tensor
    alive: Tensor

    def of(self, batch: torch.Size) -> Core:
        """Return the same with its layers in these dimensions."""
        tensors = (self.into_b, self.into_a, self.values, self.alive)
        return Core(*(tensor.reshape(*batch, *tensor.shape[1:]) for tensor in tensors))

    def norm(self) -> Tensor:
        """Return the Frobenius norm, one a layer, of what the first triples make."""
        return (self.values[..., : self.alive.shape[-1]] * self.alive).square().sum(-1).sqrt()

    def tail(self, rank: int) -> Tensor:
        """Return the Frobenius norm, one a layer, of what the triples beyond ``rank`` make."""
        return self.values[..., rank:].square().sum(-1).sqrt()


def mix_products(
    products: Sequence[Product],
    weights: Sequence[float],
    rank: int,
    scale: float = 1.0,
    *,
    path: Path = "auto",
    memory_bytes: int = MEMORY_BYTES,
) -> Mixed:
    """Return the best rank-``rank`` product of ``sum(w * p)``, and the norm of what it misses.

    Singular values are split evenly, so the factors come out balanced. Directions whose singular value drowns in
    rounding (for float32 below about 1e-7 of ``sum |w| ||p||``) are dead: their factors are zeros, as are those
    beyond what the sum can fill.

    Shapes:  products[j].b (..., d, r_j), .a (..., r_j, k); result b (..., d, rank), a (..., rank, k).
    Dtypes:  float64 inside, whatever comes in; rounded once, to the dtype of ``products[0].b``.
    Error:   1e-6 of ``sum |w| ||p||`` in float32, the weights of any sign; ``tail`` is the Frobenius norm of the
             discarded part (Eckart-Young), one a layer.
    Path:    "gram" loses half of float64's digits of what cancels between the factors, by the condition
             ``||L|| ||R|| / sum |w| ||p||`` (after its columns are balanced; sqrt(r) where the products are).
             "auto" takes it, and "qr", which loses none, for the layers where that is above CONDITION_LIMIT, for
             those where the Cholesky decomposition of ``L^T L`` breaks down, and for float64 factors.
    Memory:  at most ``memory_bytes`` beyond inputs and outputs, as far as one row of a block and the cores allow.
    Unique:  only the product; see ``gauge.align`` for the factors.
    Raises:  BadProduct if shapes, lengths, weights, rank or scale do not fit, or a factor is not finite.
    Source:  arXiv 2505.21382 (DeCAF), consensus by truncated SVD.
    """
    return truncate(stack(products, weights, memory_bytes), rank, scale, path=path, memory_bytes=memory_bytes)


def stack(products: Sequence[Product], weights: Sequence[float], memory_bytes: int = MEMORY_BYTES) -> Stack:
    """Return the weighted sum as a stack. Raises BadProduct as ``mix_products``."""
    check_same_shape(products)
    if len(weights) != len(products) or not all(math.isfinite(weight) for weight in weights):
        raise BadProduct("product.weights", f"The weights {list(weights)} do not fit {len(products)} products.")
    gram_b = gram([product.b for product in products], -1, memory_bytes).cpu()
    gram_a = gram([product.a for product in products], -2, memory_bytes).cpu()
    # A sum of squares is finite if and only if all that it sums is.
    if not math.isfinite(_diagonal(gram_b).sum().item() + _diagonal(gram_a).sum().item()):
        raise BadProduct("product.not-finite", "A factor holds a number that is not finite; nothing was mixed.")
    return Stack(products, weights, gram_b, gram_a)


def truncate(
    total: Stack, rank: int, scale: float = 1.0, *, path: Path = "auto", memory_bytes: int = MEMORY_BYTES
) -> Mixed:
    """Return the best rank-``rank`` product of a stack; the contract is that of ``mix_products``."""
    if rank < 1 or not (math.isfinite(scale) and scale > 0):
        raise BadProduct("product.rank", f"There is no product of rank {rank} and scale {scale} to mix into.")
    core = decompose([total], rank, path=path, memory_bytes=memory_bytes).of(total.batch)
    product = _apply(total.products, core, rank, scale, memory_bytes)
    return Mixed(product, core.norm(), core.tail(rank))


def cut(product: Product, rank: int, memory_bytes: int = MEMORY_BYTES) -> Product:
    """Return the best product of at most ``rank``, in float32 at least; the same one where its rank is no higher."""
    if product.rank <= rank:
        return product
    dtype = torch.promote_types(product.b.dtype, torch.float32)
    exact = Product(product.b.to(dtype), product.a.to(dtype), product.scale)
    return mix_products([exact], [1.0], rank, product.scale, memory_bytes=memory_bytes).product


def decompose(totals: Sequence[Stack], rank: int, *, path: Path = "auto", memory_bytes: int = MEMORY_BYTES) -> Core:
    """Return the first ``rank`` (at most m) singular triples of stacks, as coefficients of their bare factors.

    The stacks are of the same ranks, scales and weights, in dtypes that are all float64 or none; the layers of all of
    them are the first dimension. Together, because small matrices cost less in one call than in one each.
    """
    whole = joined(totals)
    left, right = _columns(whole)
    gram_l = whole.gram_b * left[..., :, None] * left[..., None, :]
    gram_r = whole.gram_a * right[..., :, None] * right[..., None, :]
    size, reference = (_trace(gram_l) * _trace(gram_r)).sqrt(), _reference(whole)
    fine = any(product.b.dtype == torch.float64 for product in whole.products)
    with one_thread():
        root, broken = _cholesky_root(gram_l)
        ill = broken | (size > CONDITION_LIMIT * reference)
        if path != "auto" or fine:
            ill = torch.full_like(ill, path != "gram")
        rounding = torch.where(ill, 8 * EPSILON, 2 * math.sqrt(SHIFT)) * size
        noise = torch.maximum(rounding, (EPSILON if fine else 2**-24) * reference)[..., None]
        root = root.masked_fill(ill[..., None, None], 0.0)  # those are not solved by it
        values, into_b, into_a = _by_gram(root, gram_r, noise, rank)
        for layer in ill.nonzero().flatten().tolist():
            root_l, root_r = _qr_roots(totals, layer, memory_bytes)
            values[layer], into_b[layer], into_a[layer] = _by_roots(root_l * left[layer], root_r * right[layer], rank)
    kept = values[..., :rank]
    inverse = torch.where(kept > noise, kept, torch.inf).rsqrt()
    into_b = left[..., :, None] * into_b * inverse[..., None, :]
    into_a = inverse[..., :, None] * into_a * right[..., None, :]
    return Core(into_b, into_a, values, inverse > 0)


def joined(totals: Sequence[Stack]) -> Stack:
    """Return the Gram matrices of all layers of all stacks, beside the products of the first."""
    first = totals[0]
    if len(totals) == 1 and len(first.batch) == 1:
        return first
    side = first.gram_b.shape[-1]
    gram_b = torch.cat([total.gram_b.reshape(-1, side, side) for total in totals])
    gram_a = torch.cat([total.gram_a.reshape(-1, side, side) for total in totals])
    return Stack(first.products, first.weights, gram_b, gram_a)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one CPU thread in here. Several only slow small matrices, by orders where cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def on_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return what becomes of each item, each worked on by one of as many CPU threads as torch uses."""
    workers = torch.get_num_threads()
    with one_thread():
        if len(items) < 2:  # a new thread costs as much as a layer
            return [work(item) for item in items]
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))


def _columns(total: Stack) -> tuple[Tensor, Tensor]:
    """Return what each column of L and row of R is multiplied with: weights and scales, split so as to balance them."""
    weight = total.spread([weight * p.scale for weight, p in zip(total.weights, total.products, strict=True)])
    b, a = _diagonal(total.gram_b), _diagonal(total.gram_a)
    balance = torch.where((b > 0) & (a > 0), a / b, 0.0) ** 0.25
    left = weight.sign() * weight.abs().sqrt() * balance
    return left, torch.where(balance > 0, weight.abs().sqrt() / balance, 0.0)


def _by_gram(root: Tensor, gram_r: Tensor, noise: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return all S, and of the first triples the coefficients of B and of A before their ``S^-1/2``."""
    squared, w = torch.linalg.eigh(root @ gram_r @ root.mT)
    values = squared.clamp_min(0).sqrt().flip(-1)
    kept = values[..., :rank]
    into_a = w.flip(-1)[..., :rank].mT @ root
    return values, gram_r @ into_a.mT / torch.where(kept > noise, kept, torch.inf)[..., None, :], into_a


def _by_roots(left: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what ``_by_gram`` does, by the SVD ``W S Z^T`` of the core."""
    w, values, z_t = torch.linalg.svd(left @ right.mT)
    return values, right.mT @ z_t.mT[..., :rank], w.mT[..., :rank, :] @ left


def _qr_roots(totals: Sequence[Stack], layer: int, memory_bytes: int) -> tuple[Tensor, Tensor]:
    """Return the roots of both sides of one of the layers of all stacks."""
    for total in totals:
        if layer < total.batch.numel():
            break
        layer -= total.batch.numel()
    columns = [product.b.reshape(-1, *product.b.shape[-2:])[layer] for product in total.products]
    rows = [product.a.reshape(-1, *product.a.shape[-2:])[layer] for product in total.products]
    return _qr_root(columns, -1, memory_bytes), _qr_root(rows, -2, memory_bytes)


def _reference(total: Stack) -> Tensor:
    """Return ``sum |w| ||p||``, one a layer, from the diagonal blocks of the Gram matrices."""
    result, start = torch.zeros(total.batch, dtype=torch.float64), 0
    for product, weight in zip(total.products, total.weights, strict=True):
        block = (..., slice(start, start + product.rank), slice(start, start + product.rank))
        squared = (total.gram_b[block] * total.gram_a[block]).sum((-2, -1))
        result += abs(weight * product.scale) * squared.clamp_min(0).sqrt()
        start += product.rank
    return result


def _cholesky_root(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return an upper triangular root of each Gram matrix, and which layers have none."""
    trace = _trace(matrix)
    shift = SHIFT * trace[..., None, None] * torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    root, info = torch.linalg.cholesky_ex(matrix + shift, upper=True)
    nothing = trace == 0
    return root.masked_fill(nothing[..., None, None], 0.0), (info != 0) & ~nothing


def _qr_root(parts: Sequence[Tensor], dim: int, memory_bytes: int) -> Tensor:
    """Return the (m, m) triangle of one layer's stack, by QR of one block after the other (on the CPU)."""
    width = sum(part.shape[dim] for part in parts)
    root = torch.zeros((width, width), dtype=torch.float64)
    for _, block in stacked(parts, dim, memory_bytes):
        rows = (block if dim == -1 else block.mT).cpu()
        root = torch.linalg.qr(torch.cat([root, rows]), mode="r").R
    return root


def _apply(products: Sequence[Product], core: Core, rank: int, scale: float, memory_bytes: int) -> Product:
    dtype, device = products[0].b.dtype, products[0].b.device
    missing = rank - core.alive.shape[-1]
    into_b = torch.nn.functional.pad(core.into_b, (0, missing)).to(device) / math.sqrt(scale)
    into_a = torch.nn.functional.pad(core.into_a, (0, 0, 0, missing)).to(device) / math.sqrt(scale)
    b = combined([product.b for product in products], into_b, -1, dtype, memory_bytes)
    return Product(b, combined([product.a for product in products], into_a, -2, dtype, memory_bytes), scale)


def _diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)


def _trace(matrix: Tensor) -> Tensor:
    return _diagonal(matrix).sum(-1)
