"""Adapters as safetensors files, in the format that ``decaf_node.snapshot`` describes."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from decaf_node.errors import BadData
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.coarse import in_singular_directions, steps_of
from decaf_node.lowrank.int8 import decode, encode, is_coded, scales_of, scales_shape
from decaf_node.lowrank.product import Product
from decaf_node.snapshot import (
    COMPACT_BYTES,
    GZIP,
    LORA_A,
    LORA_B,
    SCALES,
    Header,
    Wire,
    inflated,
    layers,
    metadata,
    read_header,
)

DTYPES: Mapping[Wire, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
    "compact": torch.int8,
}
DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int8: "I8"}
ERROR = 0.1  # of compact, in parts of the adapter's norm
LIMIT_BYTES = 2**32 - 1  # the most that gzip counts
ALIGNMENT_BYTES = 8
NO_STEP = torch.zeros(())
LEVEL, BLOCKS = 6, 6  # an alphabet for each 4096 numbers, of few directions: an eighth less than zlib's own blocks


def write_snapshot(path: Path, adapter: Adapter, *, wire: Wire, schema: str, base: str, round: int) -> None:
    """Write the adapter to ``path`` in a wire format; the same content is the same bytes.

    In ``compact`` products are split into their singular directions, and rounded to int8 in steps as coarse as
    ``ERROR`` allows (``coarse``); plainly averaged tensors are as in int8; and the file is deflated.

    The caller renames: until this returns, the file is not whole. (safetensors' own writer orders metadata at random.)
    Raises BadData if a finite number does not fit the format, or one is not finite in ``compact``; OSError if the file
    cannot be written.
    """
    compact, steps = wire == "compact", {}
    if compact:
        adapter = in_singular_directions(adapter)
        steps = _steps(adapter)
    parts = _parts(_tensors(adapter), DTYPES[wire])
    pieces = chain([_header(adapter, parts, schema, base, round)], _contents(adapter, parts, steps))
    with path.open("wb") as file:
        file.writelines(_deflated(pieces) if compact else pieces)


def size_of(adapter: Adapter, *, wire: Wire, schema: str, base: str, round: int) -> int:
    """Return the bytes that ``write_snapshot`` would write. Only shapes count: tensors may be on the meta device.

    In ``compact`` numbers count too; returned is what adapters of language models have had.
    """
    parts = _parts(_tensors(adapter), DTYPES[wire])
    size = len(_header(adapter, parts, schema, base, round)) + sum(part.bytes for part in parts.values())
    if wire != "compact":
        return size
    factors = sum(product.b.numel() + product.a.numel() for product in adapter.products.values())
    return size - int(factors * (1 - COMPACT_BYTES))


def read_snapshot(path: Path, limit_bytes: int = LIMIT_BYTES) -> tuple[Header, Adapter]:
    """Return header and adapter at ``path``, on the CPU in the file's own dtype, its bytes mapped, not copied.

    What is int8 there becomes float32, and what is deflated is inflated; these are copies. limit_bytes: of the second,
    the most. Raises BadData if the file is not a whole snapshot, or holds more; ``adapter.is_finite`` says whether its
    numbers are usable.
    """
    header = read_header(path)
    try:
        if header.deflated:
            tensors = load(inflated(path, limit_bytes))
        else:
            with safe_open(path, framework="pt", device="cpu") as file:
                tensors = {name: file.get_tensor(name) for name in header.tensors}
    except (SafetensorError, OSError) as error:
        raise BadData("snapshot.damaged", f"The snapshot {path.name} is damaged: {error}.") from error
    for name in layers(header) if header.deflated else ():
        tensors[name + LORA_B] = _transposed(tensors[name + LORA_B])
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


def _contents(
    adapter: Adapter, parts: Mapping[str, _Part], steps: Mapping[str, Tensor]
) -> Iterator[bytes | memoryview]:
    """Return the bytes of each part, one after another; steps: of those of int8 that may be coarser than it can be."""
    tensors = _tensors(adapter)
    scales = {
        name + SCALES: torch.maximum(scales_of(_on_cpu(tensors[name]), _scaled_along(name)), steps.get(name, NO_STEP))
        for name in tensors
        if name + SCALES in parts
    }
    for name, part in parts.items():
        if name in scales:
            content = scales[name]
        elif part.dtype == torch.int8:
            content = encode(_on_cpu(tensors[name]), scales[name + SCALES])
            content = content.mT.contiguous() if name in steps and name.endswith(LORA_B) else content
        else:
            content = _rounded(name, tensors[name], part.dtype)
        yield content.reshape(-1).view(torch.uint8).numpy().data


def _deflated(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    squeeze = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP, BLOCKS, zlib.Z_RLE)
    for piece in pieces:
        yield squeeze.compress(piece)
    yield squeeze.flush()


def _steps(adapter: Adapter) -> dict[str, Tensor]:
    """Return the steps of factors under the names of the file."""
    steps = {}
    for name, (of_b, of_a) in steps_of(adapter, ERROR).items():
        steps[name + LORA_B], steps[name + LORA_A] = of_b, of_a
    return steps


def _transposed(b: Tensor) -> Tensor:
    """Return B from what a deflated file has in its place: direction after direction, so that like lies by like."""
    rows, columns = b.shape
    return b.reshape(columns, rows).mT.contiguous()


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
