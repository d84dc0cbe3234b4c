"""Tensors as whole numbers from -127 to 127 and few scales, a quarter of the bytes of float32.

A direction of a product, a row of A or a column of B, has a scale of its own, so that a weak one keeps its digits; so
has each row of any other matrix. Rounding is to the nearest, so off by half a scale at most. Next to nothing is lost to
the mesh: both ends of an edge mix the difference of what both have sent, and a node keeps what it has (``mixing``).
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 127


def is_coded(shape: torch.Size) -> bool:
    """Say whether a tensor goes as int8: vectors, which are few numbers, go as float32."""
    return len(shape) > 1


def scales_shape(shape: torch.Size, axis: int) -> torch.Size:
    """Return the shape of the scales, one for each place along ``axis``; it broadcasts to that of the tensor."""
    return torch.Size([side if place == axis else 1 for place, side in enumerate(shape)])


def scales_of(tensor: Tensor, axis: int) -> Tensor:
    """Return the scales in float32; one that is not finite where a number is not."""
    largest = tensor.abs().amax([place for place in range(tensor.dim()) if place != axis], keepdim=True)
    return largest.to(torch.float32).clamp_min(LARGEST * torch.finfo(torch.float32).tiny) / LARGEST


def encode(tensor: Tensor, scales: Tensor) -> Tensor:
    """Return the whole numbers, in int8."""
    return (tensor.to(torch.float32) / scales).round().clamp(-LARGEST, LARGEST).to(torch.int8)


def decode(codes: Tensor, scales: Tensor) -> Tensor:
    """Return the tensor in float32."""
    return codes.to(torch.float32) * scales
