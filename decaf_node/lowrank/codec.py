"""Adapters as safetensors files, in the format that ``decaf_node.snapshot`` describes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from decaf_node.errors import BadData
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.product import Product
from decaf_node.snapshot import LORA_A, LORA_B, Header, layers, metadata, read_header

DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
ALIGNMENT_BYTES = 8


def write_snapshot(path: Path, adapter: Adapter, *, dtype: torch.dtype, schema: str, base: str, round: int) -> None:
    """Write the adapter to ``path`` in ``dtype`` (float32, bfloat16 or float16); the same content is the same bytes.

    The caller renames: until this returns, the file is not whole. (safetensors' own writer orders metadata at random.)
    Raises BadData if a finite number does not fit ``dtype``; OSError if the file cannot be written.
    """
    tensors = _tensors(adapter)
    header = _header(adapter, tensors, dtype, schema, base, round)
    with path.open("wb") as file:
        file.write(header)
        for name, tensor in tensors.items():
            file.write(_rounded(name, tensor, dtype).reshape(-1).view(torch.uint8).numpy().data)


def size_of(adapter: Adapter, *, dtype: torch.dtype, schema: str, base: str, round: int) -> int:
    """Return the bytes that ``write_snapshot`` would write. Only shapes count: tensors may be on the meta device."""
    tensors = _tensors(adapter)
    numbers = sum(tensor.numel() for tensor in tensors.values())
    return len(_header(adapter, tensors, dtype, schema, base, round)) + numbers * dtype.itemsize


def read_snapshot(path: Path) -> tuple[Header, Adapter]:
    """Return header and adapter at ``path``, on the CPU in the file's own dtype, its bytes mapped, not copied.

    Raises BadData if the file is not a whole snapshot; ``adapter.is_finite`` says whether its numbers are usable.
    """
    header = read_header(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in header.tensors}
    except (SafetensorError, OSError) as error:
        raise BadData("snapshot.damaged", f"The snapshot {path.name} is damaged: {error}.") from error
    products = {
        name: Product(tensors.pop(name + LORA_B), tensors.pop(name + LORA_A), header.scales[name])
        for name in layers(header)
    }
    return header, Adapter(products, tensors)


def _header(
    adapter: Adapter, tensors: dict[str, Tensor], dtype: torch.dtype, schema: str, base: str, round: int
) -> bytes:
    """Return all that comes before the tensors' own bytes."""
    scales = {name: product.scale for name, product in adapter.products.items()}
    document: dict[str, object] = {"__metadata__": metadata(schema, base, round, scales)}
    position = 0
    for name, tensor in tensors.items():
        end = position + tensor.numel() * dtype.itemsize
        document[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [position, end]}
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


def _rounded(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    rounded = tensor.detach().to("cpu", dtype).contiguous()
    if not torch.equal(rounded.isfinite(), tensor.isfinite().cpu()):
        raise BadData("snapshot.overflow", f"A number in {name} is too large for {dtype}; send bfloat16 or float32.")
    return rounded
