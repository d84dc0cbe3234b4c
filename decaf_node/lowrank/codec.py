"""Adapters as safetensors files, in the format that ``decaf_node.snapshot`` describes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from decaf_node.errors import BadData
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.int8 import decode, encode, is_coded, scales_of, scales_shape
from decaf_node.lowrank.product import Product
from decaf_node.snapshot import LORA_A, LORA_B, SCALES, Header, layers, metadata, read_header

DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int8: "I8"}
ALIGNMENT_BYTES = 8


def write_snapshot(path: Path, adapter: Adapter, *, dtype: torch.dtype, schema: str, base: str, round: int) -> None:
    """Write the adapter to ``path`` in float32, bfloat16, float16 or int8; the same content is the same bytes.

    The caller renames: until this returns, the file is not whole. (safetensors' own writer orders metadata at random.)
    Raises BadData if a finite number does not fit ``dtype``; OSError if the file cannot be written.
    """
    tensors = _tensors(adapter)
    parts = _parts(tensors, dtype)
    scales = {
        name + SCALES: scales_of(_on_cpu(tensors[name]), _scaled_along(name))
        for name in tensors
        if name + SCALES in parts
    }
    with path.open("wb") as file:
        file.write(_header(adapter, parts, schema, base, round))
        for name, part in parts.items():
            if name in scales:
                content = scales[name]
            elif part.dtype == torch.int8:
                content = encode(_on_cpu(tensors[name]), scales[name + SCALES])
            else:
                content = _rounded(name, tensors[name], part.dtype)
            file.write(content.reshape(-1).view(torch.uint8).numpy().data)


def size_of(adapter: Adapter, *, dtype: torch.dtype, schema: str, base: str, round: int) -> int:
    """Return the bytes that ``write_snapshot`` would write. Only shapes count: tensors may be on the meta device."""
    parts = _parts(_tensors(adapter), dtype)
    return len(_header(adapter, parts, schema, base, round)) + sum(part.bytes for part in parts.values())


def read_snapshot(path: Path) -> tuple[Header, Adapter]:
    """Return header and adapter at ``path``, on the CPU in the file's own dtype, its bytes mapped, not copied.

    What is int8 there becomes float32, which is a copy. Raises BadData if the file is not a whole snapshot;
    ``adapter.is_finite`` says whether its numbers are usable.
    """
    header = read_header(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in header.tensors}
    except (SafetensorError, OSError) as error:
        raise BadData("snapshot.damaged", f"The snapshot {path.name} is damaged: {error}.") from error
    for name in [name for name in tensors if name + SCALES in tensors]:
        tensors[name] = decode(tensors[name], tensors.pop(name + SCALES))
    products = {
        name: Product(tensors.pop(name + LORA_B), tensors.pop(name + LORA_A), header.scales[name])
        for name in layers(header)
    }
    return header, Adapter(products, tensors)


@dataclass(frozen=True)
class _Part:
    """One tensor of the file."""

    dtype: torch.dtype
    shape: torch.Size

    @property
    def bytes(self) -> int:
        return self.shape.numel() * self.dtype.itemsize


def _parts(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, _Part]:
    """Return what the file holds, in order: wider numbers first, so that each lies at a multiple of its width."""
    parts = {}
    for name, tensor in tensors.items():
        coded = dtype == torch.int8 and is_coded(tensor.shape)
        if coded:
            parts[name + SCALES] = _Part(torch.float32, scales_shape(tensor.shape, _scaled_along(name)))
        parts[name] = _Part(torch.float32 if dtype == torch.int8 and not coded else dtype, tensor.shape)
    return dict(sorted(parts.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))


def _header(adapter: Adapter, parts: Mapping[str, _Part], schema: str, base: str, round: int) -> bytes:
    """Return all that comes before the tensors' own bytes."""
    scales = {name: product.scale for name, product in adapter.products.items()}
    document: dict[str, object] = {"__metadata__": metadata(schema, base, round, scales)}
    position = 0
    for name, part in parts.items():
        end = position + part.bytes
        document[name] = {
            "dtype": DTYPE_NAMES[part.dtype],
            "shape": list(part.shape),
            "data_offsets": [position, end],
        }
        position = end
    header = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % ALIGNMENT_BYTES)
    return struct.pack("<Q", len(header)) + header


def _tensors(adapter: Adapter) -> dict[str, Tensor]:
    """Return all tensors under the names of the file, sorted."""
    tensors = dict(adapter.tensors)
    for name, product in adapter.products.items():
        tensors[name + LORA_A] = product.a
        tensors[name + LORA_B] = product.b
    return dict(sorted(tensors.items()))


def _scaled_along(name: str) -> int:
    """Return the axis along which each place has a scale in int8: columns of B, rows of everything else."""
    return 1 if name.endswith(LORA_B) else 0


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu")


def _rounded(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    rounded = tensor.detach().to("cpu", dtype).contiguous()
    if not torch.equal(rounded.isfinite(), tensor.isfinite().cpu()):
        raise BadData("snapshot.overflow", f"A number in {name} is too large for {dtype}; send bfloat16 or float32.")
    return rounded
