"""Gram matrices of stacked factors, in float64 and block by block, so that no stack is ever held whole.

Float64 is what makes a Gram matrix safe here (a float32 one loses a spectrum over 1e-5), and its products are
never rounded to TF32 or bfloat16, whatever the process has set for its float32 ones.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

MEMORY_BYTES = 256 * 1024 * 1024
# On a CPU larger blocks leave its cache, and of smaller ones there are so many that the calls cost more.
CACHE_BYTES = 4 * 1024 * 1024

_held = threading.local()


def piece_bytes(device: torch.device, memory_bytes: int) -> int:
    """Return how much to work on at once, so that four such pieces fit in ``memory_bytes``."""
    return min(memory_bytes // 4, CACHE_BYTES) if device.type == "cpu" else memory_bytes // 4


@torch.no_grad()
def stacked(parts: Sequence[Tensor], dim: int, memory_bytes: int = MEMORY_BYTES) -> Iterator[tuple[slice, Tensor]]:
    """Yield the parts stacked along ``dim`` (-1: factors B, -2: factors A) in float64, cut along the other side.

    Each block is a piece of ``memory_bytes`` (at least one row or column), and comes with its place. It holds until the
    next block, or the next stack of this thread. The parts may lie on several devices: the first one's is worked on.
    """
    batch, width = parts[0].shape[:-2], sum(part.shape[dim] for part in parts)
    step = max(1, piece_bytes(parts[0].device, memory_bytes) // (8 * max(1, width * batch.numel())))
    dtype, device = functools.reduce(torch.promote_types, [part.dtype for part in parts]), parts[0].device
    start = 0
    for pieces in zip(*(torch.split(part, step, _other(dim)) for part in parts), strict=True):
        size = pieces[0].shape[_other(dim)]
        shape = (*batch, size, width) if dim == -1 else (*batch, width, size)
        block = _scratch("block", shape, torch.float64, device)
        together = _scratch("pieces", shape, dtype, device)
        block.copy_(torch.cat([piece.to(device) for piece in pieces], dim, out=together))
        yield slice(start, start + size), block
        start += size


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
        # for B too the short side comes first: on a CPU that takes half the time of ``block @ coefficients``
        left, right = (coefficients.mT, block.mT) if dim == -1 else (coefficients, block)
        part = _scratch("part", (*batch, rank, right.shape[-1]), torch.float64, block.device)
        torch.matmul(left, right, out=part)
        if dim == -1:
            result[..., place, :] = part.mT
        else:
            result[..., place] = part
    return result


def _scratch(purpose: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor to be used at once. On a CPU all of a thread's for one purpose are the same memory.

    New memory would be given back each time, and asked of the system anew: its page faults are a quarter of a mix. A
    thread keeps some three times ``CACHE_BYTES`` for it, for as long as it lives.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    held = getattr(_held, purpose, None)
    if held is None or held.dtype != dtype or held.numel() < math.prod(shape):
        with torch.inference_mode(mode=False):  # else it could be used in that mode only
            held = torch.empty(math.prod(shape), dtype=dtype, device=device)
        setattr(_held, purpose, held)
    return held[: math.prod(shape)].view(*shape)


def _other(dim: int) -> int:
    return -3 - dim
