"""The choice that a product leaves open: which factors, so that training goes on as if nothing had happened."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from decaf_node.lowrank.gram import MEMORY_BYTES, combined, gram
from decaf_node.lowrank.mix import decompose, one_thread, stack
from decaf_node.lowrank.product import BadProduct, Product, check_same_shape

# A dead direction in which the old A is shorter than this share of its root mean square gets a random row instead.
SHORT = 0.1
# The root mean square singular value of a fresh LoRA's A (uniform within 1/sqrt(k)), where the old A is zero.
FRESH_LENGTH = 1 / math.sqrt(3)
SEED = 0


@dataclass(frozen=True)
class _Turn:
    """One layer's factors: ``b = new.b @ into_b``, ``a = of_new @ new.a + of_old @ old.a + of_noise @ noise``."""

    into_b: Tensor
    of_new: Tensor
    of_old: Tensor
    of_noise: Tensor


def align(new: Product, old: Product, *, memory_bytes: int = MEMORY_BYTES) -> Product:
    """Return the product ``new`` in balanced factors, turned as near to those of ``old`` as a rotation can.

    The turn is the orthogonal Procrustes solution ``Q = U V^T`` of ``b_new^T b_old + a_new a_old^T = U S V^T``,
    reflections allowed: without it Adam's moments would be noise after every mix. Where the rank of ``new`` is below r,
    the other directions are dead: of the old columns the weakest become theirs, with B exactly 0 and the old rows of A
    made orthogonal to the live ones, or seeded random rows where the old A has nothing left. So a product of zero
    keeps the old A as it is, and no gradient is zero for ever. Live and dead columns never mix.

    Why balanced: a nearer fit exists (keep A at the old A, B takes the rest), which also spares Adam's second moments
    the step from ||A|| >> ||B|| to balance. In trials (two LoRA layers, six nodes on a ring, skewed labels, Adam kept,
    best of five learning rates) it ended at .46 accuracy where this ends at .53; forgetting Adam's moments gave .53.

    Shapes:  both products of one shape, rank and batch.
    Dtypes:  float64 inside, whatever comes in; rounded once, to the dtype of ``new.b``.
    Error:   the product is unchanged to 2e-7 of its norm in float32.
    Raises:  BadProduct if the two do not fit, or a factor is not finite.
    """
    check_same_shape([new, old])
    rank = new.rank
    if rank != old.rank:
        raise BadProduct("product.rank", f"Factors of rank {rank} cannot be aligned with those of rank {old.rank}.")
    core = decompose(stack([new], [1.0 / new.scale], memory_bytes), rank, memory_bytes=memory_bytes)
    gram_b = gram([old.b, new.b], -1, memory_bytes).cpu().reshape(-1, 2 * rank, 2 * rank)
    gram_a = gram([old.a, new.a], -2, memory_bytes).cpu().reshape(-1, 2 * rank, 2 * rank)
    layers = (core.into_b.reshape(-1, rank, rank), core.into_a.reshape(-1, rank, rank), gram_b, gram_a)
    with one_thread():
        turns = [_turn(*layer) for layer in zip(*layers, strict=True)]
    return _turned(new, old, turns, memory_bytes)


def _turn(into_b: Tensor, into_a: Tensor, gram_b: Tensor, gram_a: Tensor) -> _Turn:
    """Return one layer's turn, from its SVD (see ``mix.Core``) and the Gram matrices of old and new factors."""
    rank = len(into_a)
    old = slice(0, rank), slice(0, rank)
    cross = slice(0, rank), slice(rank, None)
    alive = into_a.any(-1)
    strength = gram_b[old].diagonal() * gram_a[old].diagonal()
    order = strength.sort(descending=True, stable=True).indices
    live, dead = order[: int(alive.sum())], order[int(alive.sum()) :]
    near = into_b[:, alive].T @ gram_b[cross][live].T + into_a[alive] @ gram_a[cross][live].T
    u, _, v = torch.linalg.svd(near)
    turn = _Turn(*(torch.zeros(rank, rank, dtype=torch.float64) for _ in range(4)))
    turn.into_b[:, live] = into_b[:, alive] @ u @ v
    turn.of_new[live] = (u @ v).T @ into_a[alive]
    _revive(turn, live, dead, gram_a)
    return turn


def _revive(turn: _Turn, live: Tensor, dead: Tensor, gram_a: Tensor) -> None:
    """Fill in the rows of A of the dead columns: the old ones, less what the live rows span, or random ones."""
    rank = len(gram_a) // 2
    old_old, old_new, new_new = gram_a[:rank, :rank], gram_a[:rank, rank:], gram_a[rank:, rank:]
    length = math.sqrt(old_old.trace().item() / rank) or FRESH_LENGTH
    rows = turn.of_new[live]
    shares = torch.linalg.solve(rows @ new_new @ rows.T, rows @ old_new[dead].T).T
    left = old_old[dead][:, dead] - shares @ rows @ old_new[dead].T
    squared, axes = torch.linalg.eigh(left)
    kept, lost = axes[:, squared > (SHORT * length) ** 2], axes[:, squared <= (SHORT * length) ** 2]
    turn.of_old[dead[:, None], dead] = kept @ kept.T
    turn.of_new[dead] = -kept @ kept.T @ shares @ rows
    turn.of_noise[dead, : lost.shape[1]] = lost * length


def _turned(new: Product, old: Product, turns: list[_Turn], memory_bytes: int) -> Product:
    def batched(tensors: list[Tensor]) -> Tensor:
        return torch.stack(tensors).reshape(*new.batch, *tensors[0].shape).to(new.b.device)

    parts = [new.a, old.a]
    into_a = [batched([turn.of_new for turn in turns]), batched([turn.of_old for turn in turns])]
    if any(bool(turn.of_noise.any()) for turn in turns):
        news, olds = new.a.reshape(-1, *new.a.shape[-2:]), old.a.reshape(-1, *old.a.shape[-2:])
        parts.append(batched([_noise(*layer) for layer in zip(turns, news, olds, strict=True)]))
        into_a.append(batched([turn.of_noise for turn in turns]))
    b = combined([new.b], batched([turn.into_b for turn in turns]), -1, new.b.dtype, memory_bytes)
    return Product(b, combined(parts, torch.cat(into_a, -1), -2, new.a.dtype, memory_bytes), new.scale)


def _noise(turn: _Turn, new_a: Tensor, old_a: Tensor) -> Tensor:
    """Return (r, k) seeded random rows of length 1, orthogonal to all other rows of one layer; zeros if unneeded."""
    noise = torch.zeros(new_a.shape, dtype=torch.float64)
    if not turn.of_noise.any():
        return noise
    noise.normal_(generator=torch.Generator().manual_seed(SEED))
    others = turn.of_new @ new_a.cpu().double() + turn.of_old @ old_a.cpu().double()
    _, lengths, rows = torch.linalg.svd(others, full_matrices=False)
    rows = rows[lengths > 1e-6 * lengths.max()]
    noise -= noise @ rows.T @ rows
    return torch.nn.functional.normalize(noise - noise @ rows.T @ rows)
