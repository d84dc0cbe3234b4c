"""The choice that a product leaves open: which factors, so that training goes on as if nothing had happened."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from decaf_node.lowrank.gram import combined, gram
from decaf_node.lowrank.mix import MEMORY_BYTES, decompose, stack
from decaf_node.lowrank.product import BadProduct, Product, check_same_shape

# Live rows of A shorter than this share of the old A's root mean square singular value are lengthened to it: short
# rows make B large, and the pair badly conditioned.
FLOOR = 0.25
# The root mean square singular value of a fresh LoRA's A (uniform within 1/sqrt(k)), where the old A is zero.
FRESH_LENGTH = 1 / math.sqrt(3)
SEED = 0


@dataclass(frozen=True)
class _Turn:
    """One layer's new factors: ``b = new.b @ into_b``, ``a = of_new @ new.a + of_old @ old.a + of_random @ noise``."""

    into_b: Tensor
    of_new: Tensor
    of_old: Tensor
    of_random: Tensor


def align(new: Product, old: Product, *, memory_bytes: int = MEMORY_BYTES) -> Product:
    """Return the product ``new`` in factors near those of ``old``: A as near the old A as it can be, B the rest.

    The live rows of A are the old A's projection to the row space of ``new``, kept well conditioned by ``FLOOR``.
    Where the rank of ``new`` is below r, the other directions are dead (B = 0): they keep what the old A has
    orthogonal to the live rows, or get seeded random rows where it has nothing there. So a product of zero keeps
    the old A as it is, and no gradient is zero for ever. Live and dead directions are turned apart.

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
    cross = gram([old.a, new.a], -2, memory_bytes // 4).cpu().reshape(-1, 2 * rank, 2 * rank)
    layers = zip(core.into_b.reshape(-1, rank, rank), core.into_a.reshape(-1, rank, rank), strict=True)
    turns = [_turn(into_b, into_a, grams, rank) for (into_b, into_a), grams in zip(layers, cross, strict=True)]
    return _turned(new, old, turns, memory_bytes // 4)


def _turn(into_b: Tensor, into_a: Tensor, grams: Tensor, rank: int) -> _Turn:
    """Return one layer's coefficients, from its SVD (see ``mix.Core``) and the Gram matrix of [old.a; new.a]."""
    live = into_a.abs().sum(-1) > 0
    into_b, into_a = into_b[:, live], into_a[live]
    old_old, old_new, new_new = grams[:rank, :rank], grams[:rank, rank:], grams[rank:, rank:]
    length = math.sqrt(old_old.trace().item() / rank) or FRESH_LENGTH
    roots = (into_a @ new_new * into_a).sum(-1).sqrt()
    rows = into_a / roots[:, None]
    u, seen, w = torch.linalg.svd(old_new @ rows.T)
    kept, dead = u[:, : len(roots)], u[:, len(roots) :]
    lengths = seen.clamp_min(FLOOR * length)
    of_old, of_random = _dead(dead, old_old, length)
    return _Turn(
        into_b=into_b * roots @ w.T / lengths @ kept.T,
        of_new=kept * lengths @ w @ rows,
        of_old=of_old,
        of_random=of_random,
    )


def _dead(dead: Tensor, old_old: Tensor, length: float) -> tuple[Tensor, Tensor]:
    """Return the coefficients of old A and of random rows in the dead directions, which ``dead`` (r, n) spans."""
    squared, turn = torch.linalg.eigh(dead.T @ old_old @ dead)
    strong = squared > (FLOOR * length) ** 2
    old, random = dead @ turn[:, strong], dead @ turn[:, ~strong]
    return old @ old.T, torch.nn.functional.pad(random * length, (0, dead.shape[0] - random.shape[1]))


def _turned(new: Product, old: Product, turns: list[_Turn], block_bytes: int) -> Product:
    def batched(tensors: list[Tensor]) -> Tensor:
        return torch.stack(tensors).reshape(*new.batch, *tensors[0].shape).to(new.b.device)

    parts = [new.a, old.a]
    into_a = [batched([turn.of_new for turn in turns]), batched([turn.of_old for turn in turns])]
    if any(bool(turn.of_random.any()) for turn in turns):
        olds = old.a.reshape(-1, *old.a.shape[-2:])
        news = new.a.reshape(-1, *new.a.shape[-2:])
        parts.append(batched([_noise(turn, n, o) for turn, n, o in zip(turns, news, olds, strict=True)]))
        into_a.append(batched([turn.of_random for turn in turns]))
    b = combined([new.b], batched([turn.into_b for turn in turns]), -1, new.b.dtype, block_bytes)
    return Product(b, combined(parts, torch.cat(into_a, -1), -2, new.a.dtype, block_bytes), new.scale)


def _noise(turn: _Turn, new_a: Tensor, old_a: Tensor) -> Tensor:
    """Return (r, k) seeded random rows of length 1, orthogonal to all other rows of one layer; zeros if unneeded."""
    noise = torch.zeros(new_a.shape, dtype=torch.float64)
    if not turn.of_random.any():
        return noise
    noise.normal_(generator=torch.Generator().manual_seed(SEED))
    others = turn.of_new @ new_a.cpu().double() + turn.of_old @ old_a.cpu().double()
    _, lengths, rows = torch.linalg.svd(others, full_matrices=False)
    rows = rows[lengths > 1e-6 * lengths.max()]
    noise -= noise @ rows.T @ rows
    return torch.nn.functional.normalize(noise - noise @ rows.T @ rows)
