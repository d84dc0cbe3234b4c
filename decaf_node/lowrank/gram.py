"""Gram matrices of stacked factors, in float64 and block by block, so that no stack is ever held whole.

Float64 is what makes a Gram matrix safe here (a float32 one loses a spectrum over 1e-5), and its products are
never rounded to TF32 or bfloat16, whatever the process has set for its float32 ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

MEMORY_BYTES = 256 * 1024 * 1024
CACHE_BYTES = 2 * 1024 * 1024  # on a CPU larger blocks leave the cache and cost page faults: up to twice the time


def piece_bytes(device: torch.device, memory_bytes: int) -> int:
    """Return how much to work on at once, so that four such pieces fit in ``memory_bytes``."""
    return min(memory_bytes // 4, CACHE_BYTES) if device.type == "cpu" else memory_bytes // 4


@torch.no_grad()
def stacked(parts: Sequence[Tensor], dim: int, memory_bytes: int = MEMORY_BYTES) -> Iterator[tuple[slice, Tensor]]:
    """Yield the parts stacked along ``dim`` (-1: factors B, -2: factors A) in float64, cut along the other side.

    Each block is a piece of ``memory_bytes`` (at least one row or column), and comes with its place.
    """
    batch, length = parts[0].shape[:-2], parts[0].shape[_other(dim)]
    width = sum(part.shape[dim] for part in parts)
    step = max(1, piece_bytes(parts[0].device, memory_bytes) // (8 * max(1, width * batch.numel())))
    for start in range(0, length, step):
        place = slice(start, min(start + step, length))
        block = torch.cat([part[..., place, :] if dim == -1 else part[..., place] for part in parts], dim).double()
        yield place, block


@torch.no_grad()
def gram(parts: Sequence[Tensor], dim: int, memory_bytes: int = MEMORY_BYTES) -> Tensor:
    """Return the Gram matrix (..., m, m) of the parts stacked along ``dim``, in float64 on their device."""
    batch, width = parts[0].shape[:-2], sum(part.shape[dim] for part in parts)
    total = torch.zeros((*batch, width, width), dtype=torch.float64, device=parts[0].device)
    for _, block in stacked(parts, dim, memory_bytes):
        total += block.mT @ block if dim == -1 else block @ block.mT
    return total


@torch.no_grad()
def combined(
    parts: Sequence[Tensor], coefficients: Tensor, dim: int, dtype: torch.dtype, memory_bytes: int = MEMORY_BYTES
) -> Tensor:
    """Return ``stack @ coefficients`` (dim -1) or ``coefficients @ stack`` (dim -2), rounded once, to ``dtype``."""
    batch, length, rank = parts[0].shape[:-2], parts[0].shape[_other(dim)], coefficients.shape[dim]
    shape = (*batch, length, rank) if dim == -1 else (*batch, rank, length)
    result = torch.empty(shape, dtype=dtype, device=parts[0].device)
    for place, block in stacked(parts, dim, memory_bytes):
        if dim == -1:
            # on a CPU this takes half the time of ``block @ coefficients``
            result[..., place, :] = (coefficients.mT @ block.mT).mT
        else:
            result[..., place] = coefficients @ block
    return result


def _other(dim: int) -> int:
    return -3 - dim
