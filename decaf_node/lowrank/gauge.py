"""The choice that a product leaves open: which factors, so that training goes on as if nothing had happened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decaf_node.lowrank.gram import MEMORY_BYTES, combined
from decaf_node.lowrank.mix import Core, Stack, decompose, joined, one_thread, stack
from decaf_node.lowrank.product import BadProduct, Product, check_same_shape

# A dead direction in which the old A is shorter than this share of its root mean square gets a random row instead.
SHORT = 0.1
# The root mean square singular value of a fresh LoRA's A (uniform within 1/sqrt(k)), where the old A is zero.
FRESH_LENGTH = 1 / math.sqrt(3)
SEED = 0


@dataclass(frozen=True)
class _Turn:
    """Factors of layers: ``b = [b_1 .. b_n] @ into_b``, ``a = into_a @ [a_1; ..; a_n] + into_noise @ noise``.

    Each has the layers as its first dimension.
    """

    into_b: Tensor
    into_a: Tensor
    into_noise: Tensor


def align(new: Product, old: Product, *, memory_bytes: int = MEMORY_BYTES) -> Product:
    """Return the product ``new`` in balanced factors, turned as near to those of ``old`` as a rotation can.

    The turn is the orthogonal Procrustes solution ``Q = U V^T`` of ``b_new^T b_old + a_new a_old^T = U S V^T``,
    reflections allowed: without it Adam's moments would be noise after every mix. Where the rank of ``new`` is below
    r, the other directions are dead: the weakest of the old columns become theirs, with B exactly 0 and the old rows
    of A made orthogonal to the live ones, or seeded random rows where the old A has nothing left. So a product of zero
    keeps the old A as it is, and no gradient is zero for ever. Live and dead columns never mix.

    Why balanced: a nearer fit exists (keep A at the old A, B takes the rest), which also spares Adam's second moments
    the step from ``||A|| >> ||B||``. In trials (two LoRA layers, six nodes on a ring, skewed labels, Adam's moments
    kept, each at its best of five learning rates) it ended at an accuracy of .46, this at .53, and this with the
    moments forgotten at .53 (never better than keeping them).

    Shapes:  both of one shape, rank and batch.
    Dtypes:  float64 inside; rounded once, to the dtype of ``old``. The scale is that of ``old`` too.
    Error:   the product is unchanged to 2e-7 of its norm in float32.
    Raises:  BadProduct if the two do not fit, or a factor is not finite.
    """
    check_same_shape([new, old])
    if new.rank != old.rank:
        raise BadProduct("product.rank", f"Factors of rank {new.rank} cannot be aligned with those of rank {old.rank}.")
    total = stack([old, new], [0.0, 1.0], memory_bytes)
    return truncate_near([total], memory_bytes=memory_bytes)[0][0]


def truncate_near(totals: Sequence[Stack], *, memory_bytes: int = MEMORY_BYTES) -> tuple[list[Product], Tensor, Tensor]:
    """Return for each stack what ``mix.truncate`` would, in rank, scale and dtype of its first product, near to it.

    One step instead of two: the Gram matrices of the stack know all that ``align`` asks, and nothing is rounded
    in between. The stacks differ in nothing but their factors (``mix.decompose``). Beside the products come norm and
    tail of all their layers, see ``mix.Mixed``.
    """
    old = totals[0].products[0]
    core = decompose(totals, old.rank, memory_bytes=memory_bytes)
    with one_thread():
        turn = _turn(core, joined(totals), old.scale)
    products, start = [], 0
    for total in totals:
        layers = slice(start, start + total.batch.numel())
        part = _Turn(turn.into_b[layers], turn.into_a[layers], turn.into_noise[layers])
        products.append(_turned(total, part, memory_bytes))
        start = layers.stop
    return products, core.norm(), core.tail(old.rank)


def _turn(core: Core, total: Stack, scale: float) -> _Turn:
    """Return how layers are turned, from their SVD and the Gram matrices, whose first r are the old's."""
    rank = core.into_a.shape[-2]
    into_b, into_a = core.into_b / math.sqrt(scale), core.into_a / math.sqrt(scale)
    q = _procrustes(into_b.mT @ total.gram_b[..., :rank] + into_a @ total.gram_a[..., :rank])
    turn = _Turn(into_b @ q, q.mT @ into_a, torch.zeros_like(q))
    for layer in (~core.alive.all(-1)).nonzero().flatten().tolist():
        _turn_some(turn, layer, core.alive[layer], into_b[layer], into_a[layer], total)
    return turn


def _procrustes(matrix: Tensor) -> Tensor:
    u, _, v = torch.linalg.svd(matrix)
    turn: Tensor = u @ v
    return turn


def _turn_some(turn: _Turn, layer: int, alive: Tensor, into_b: Tensor, into_a: Tensor, total: Stack) -> None:
    """Write the turn of a layer that has dead directions: the strongest of the old ones become the live ones'."""
    gram_b, gram_a = total.gram_b[layer], total.gram_a[layer]
    strength = (gram_b.diagonal() * gram_a.diagonal())[: len(alive)]
    order = strength.sort(descending=True, stable=True).indices
    into_b, into_a = into_b[:, alive], into_a[alive]
    live, dead = order[: len(into_a)], order[len(into_a) :]
    q = _procrustes(into_b.T @ gram_b[:, live] + into_a @ gram_a[:, live])
    turn.into_b[layer], turn.into_a[layer] = 0.0, 0.0
    turn.into_b[layer][:, live] = into_b @ q
    turn.into_a[layer][live] = q.T @ into_a
    _revive(turn.into_a[layer], turn.into_noise[layer], into_a, dead, gram_a)


def _revive(into_a: Tensor, into_noise: Tensor, live_rows: Tensor, dead: Tensor, gram_a: Tensor) -> None:
    """Fill in the rows of A of the dead columns: the old ones less what the live rows span, or random ones."""
    rank = len(into_a)
    length = math.sqrt(gram_a.diagonal()[:rank].sum().item() / rank) or FRESH_LENGTH
    shares = torch.linalg.solve(live_rows @ gram_a @ live_rows.T, live_rows @ gram_a[:, dead]).T
    rows = torch.nn.functional.one_hot(dead, gram_a.shape[0]).double() - shares @ live_rows
    squared, axes = torch.linalg.eigh(rows @ gram_a @ rows.T)
    short = squared <= (SHORT * length) ** 2
    kept, lost = axes[:, ~short], axes[:, short]
    into_a[dead] = kept @ kept.T @ rows
    into_noise[dead, : lost.shape[1]] = lost * length


def _turned(total: Stack, turn: _Turn, memory_bytes: int) -> Product:
    old = total.products[0]

    def batched(tensor: Tensor) -> Tensor:
        return tensor.reshape(*total.batch, *tensor.shape[1:]).to(old.b.device)

    rows, into_a = [product.a for product in total.products], batched(turn.into_a)
    if turn.into_noise.any():
        noise = torch.stack([_noise(total, turn, layer) for layer in range(len(turn.into_noise))])
        rows, into_a = [*rows, batched(noise)], torch.cat([into_a, batched(turn.into_noise)], -1)
    columns = [product.b for product in total.products]
    b = combined(columns, batched(turn.into_b), -1, old.b.dtype, memory_bytes)
    return Product(b, combined(rows, into_a, -2, old.a.dtype, memory_bytes), old.scale)


def _noise(total: Stack, turn: _Turn, layer: int) -> Tensor:
    """Return (r, k) seeded random rows of length 1, orthogonal to all other rows of one layer; zeros if unneeded."""
    rows = [product.a.reshape(-1, *product.a.shape[-2:])[layer].cpu() for product in total.products]
    noise = torch.zeros(rows[0].shape, dtype=torch.float64)
    if not turn.into_noise[layer].any():
        return noise
    noise.normal_(generator=torch.Generator().manual_seed(SEED))
    _, lengths, span = torch.linalg.svd(combined(rows, turn.into_a[layer], -2, torch.float64), full_matrices=False)
    span = span[lengths > 1e-6 * lengths.max()]
    noise -= noise @ span.T @ span
    return torch.nn.functional.normalize(noise - noise @ span.T @ span)
