"""The header of an adapter file: what a snapshot says of itself, read and checked without torch.

A snapshot is one safetensors file (https://huggingface.co/docs/safetensors, "Format"): 8 bytes little-endian
header length, a JSON header, the tensor bytes. Ours keeps PEFT's tensor names (``….lora_A.weight`` (r, k),
``….lora_B.weight`` (d, r), and plainly averaged tensors under their own names) and five strings of metadata. A tensor
in int8 has scales beside it, ``….int8_scales`` in float32, which its numbers are to be multiplied by. The whole file
may be deflated, as gzip does it (RFC 1952); then the numbers of each B lie column after column.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import zlib
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

from decaf_node.errors import BadData

Wire = Literal["float32", "bfloat16", "float16", "int8", "compact"]
COMPACT_BYTES = 0.3  # of a factor's number in compact, about; how many they are depends on the numbers themselves
FORMAT = "decaf-node/1"
HEADER_LIMIT_BYTES = 4 * 1024 * 1024  # about 25,000 tensors; a parsed one takes ten times as much memory
READ_BYTES = 1024 * 1024
DTYPE_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "I8": 1}
MAX_WIDTH = 8  # bytes of a number anywhere; nothing overflows, not even the strides of an empty tensor
LORA_A = ".lora_A.weight"
LORA_B = ".lora_B.weight"
SCALES = ".int8_scales"
MAGIC = b"\x1f\x8b\x08\x00"  # of gzip, with no names or comments; no header length begins so: it is a multiple of 8
GZIP = 16 + zlib.MAX_WBITS  # zlib's word for it
SIDES_LIMIT = 8
COUNT_LIMIT = 2**63  # sides, offsets and rounds are 64-bit everywhere else: files, databases, messages


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a snapshot: safetensors dtype name, shape, and its bytes relative to the data section."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a snapshot says of itself.

    schema: fingerprint of all that must agree between two nodes that mix (hex sha256)
    base:   fingerprint of the frozen base model (hex sha256)
    round:  the sender's round number, from 1
    rank:   the largest rank of any layer
    scales: layer name -> LoRA scale (alpha / r, or alpha / sqrt(r) under rsLoRA)
    size_bytes: of the file
    deflated: as a whole, and the numbers of each B lie column after column
    """

    schema: str
    base: str
    round: int
    rank: int
    scales: dict[str, float]
    tensors: dict[str, TensorInfo]
    size_bytes: int
    deflated: bool = False

    def metadata(self) -> dict[str, str]:
        """The strings that go under ``__metadata__``."""
        return metadata(self.schema, self.base, self.round, self.scales)


def metadata(schema: str, base: str, round: int, scales: dict[str, float]) -> dict[str, str]:
    """Return the ``__metadata__`` strings of a snapshot, the same bytes for the same content."""
    return {
        "format": FORMAT,
        "schema": schema,
        "base": base,
        "round": str(round),
        "scales": json.dumps(scales, sort_keys=True, separators=(",", ":")),
    }


def read_header(path: Path) -> Header:
    """Read and check the header of the snapshot at ``path``; the tensor bytes are not read.

    Raises BadData if the file is not a whole snapshot of this format: unreadable, truncated, with an unknown
    dtype, tensors that overlap or leave gaps, a layer or int8 without its partner, or metadata that does not parse. How
    long a deflated file is, is what it says itself until it is ``inflated``.
    """
    try:
        with path.open("rb") as file:
            return parse_header(file, path.stat().st_size, str(path))
    except OSError as error:
        raise BadData("snapshot.unreadable", f"The snapshot {path} cannot be read: {error.strerror}.") from error


def parse_header(file: BinaryIO, size_bytes: int, name: str) -> Header:
    """Parse the header at the start of ``file``, whose whole length is ``size_bytes``; see ``read_header``."""
    if not _is_deflated(file):
        return _parse(file, size_bytes, name)
    inside = _inflated_bytes(file)
    head, _ = _inflate(file, 8 + HEADER_LIMIT_BYTES, name)
    return replace(_parse(BytesIO(head), inside, name), size_bytes=size_bytes, deflated=True)


def inflated(path: Path, limit_bytes: int) -> bytes:
    """Return what a deflated file holds. Raises BadData if it is not whole, or holds more; OSError."""
    with path.open("rb") as file:
        inside = _inflated_bytes(file)
        if inside > limit_bytes:
            raise BadData(
                "snapshot.too-large",
                f"The snapshot {path.name} holds {inside} bytes, deflated, and this node takes {limit_bytes}; raise "
                "limits.snapshot_bytes here.",
            )
        data, whole = _inflate(file, inside + 1, str(path))
    if not whole or len(data) != inside:
        raise _damaged(str(path), f"it does not inflate to {inside} bytes and nothing more")
    return data


def _is_deflated(file: BinaryIO) -> bool:
    begins = file.read(len(MAGIC)) == MAGIC
    file.seek(0)
    return begins


def _inflated_bytes(file: BinaryIO) -> int:
    """Return how many bytes the gzip file says that it holds, and go back to its beginning."""
    file.seek(-4, os.SEEK_END)
    (inside,) = struct.unpack("<I", file.read(4))
    file.seek(0)
    return int(inside)


def _inflate(file: BinaryIO, most: int, name: str) -> tuple[bytes, bool]:
    """Return at most so many bytes of what the gzip file holds, and whether that is all, and all that the file is."""
    inflating, data = zlib.decompressobj(GZIP), bytearray()
    block = file.read(READ_BYTES)
    try:
        while block and len(data) < most and not inflating.eof:
            data += inflating.decompress(block, most - len(data))
            block = inflating.unconsumed_tail or file.read(READ_BYTES)
    except zlib.error as error:
        raise _damaged(name, f"it does not inflate ({error})") from error
    return bytes(data), inflating.eof and not block and not inflating.unused_data


def _parse(file: BinaryIO, size_bytes: int, name: str) -> Header:
    raw = _raw_header(file, size_bytes, name)
    try:
        document = json.loads(raw.decode())
        described = dict(document.pop("__metadata__"))
        tensors = {str(key): _tensor(value) for key, value in document.items()}
        scales = {str(key): float(value) for key, value in json.loads(described["scales"]).items()}
        header = Header(
            schema=str(described["schema"]),
            base=str(described["base"]),
            round=int(described["round"]),
            rank=max((info.shape[0] for key, info in tensors.items() if key.endswith(LORA_A)), default=0),
            scales=scales,
            tensors=tensors,
            size_bytes=size_bytes,
        )
        known = described["format"] == FORMAT
        "".join((*tensors, header.schema, header.base)).encode()  # JSON can escape what no file or message can hold
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise _damaged(name, "its header does not parse") from error
    if not known:
        raise _damaged(name, f"its format is not {FORMAT}")
    _check(header, 8 + len(raw), name)
    return header


def digest_of(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def layers(header: Header) -> list[str]:
    """Return the names of the layers that carry a product, sorted."""
    return sorted(key.removesuffix(LORA_A) for key in header.tensors if key.endswith(LORA_A))


def _raw_header(file: BinaryIO, size_bytes: int, name: str) -> bytes:
    prefix = file.read(8)
    if len(prefix) < 8:
        raise _damaged(name, "it is shorter than its own header")
    length = struct.unpack("<Q", prefix)[0]
    if length > min(HEADER_LIMIT_BYTES, size_bytes - 8):
        raise _damaged(name, f"its header claims {length} bytes")
    raw = file.read(length)
    if len(raw) < length:
        raise _damaged(name, "it ends inside its header")
    return raw


def _tensor(value: Any) -> TensorInfo:
    begin, end = value["data_offsets"]
    shape = tuple(value["shape"])
    if len(shape) > SIDES_LIMIT or not all(
        type(side) is int and 0 <= side < COUNT_LIMIT for side in (*shape, begin, end)
    ):
        raise ValueError("sides and offsets are counts, and few")
    return TensorInfo(str(value["dtype"]), shape, begin, end)


def _check(header: Header, data_start: int, name: str) -> None:
    position = 0
    for key, info in sorted(header.tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.dtype not in DTYPE_BYTES:
            raise _damaged(name, f"tensor {_shown(key)} has dtype {_shown(info.dtype)}")
        if math.prod(max(side, 1) for side in info.shape) >= COUNT_LIMIT // MAX_WIDTH:
            raise _damaged(name, f"tensor {_shown(key)} has a shape of too many numbers")
        if info.begin != position or info.end - info.begin != math.prod(info.shape) * DTYPE_BYTES[info.dtype]:
            raise _damaged(name, f"tensor {_shown(key)} does not lie where its shape says")
        position = info.end
    if data_start + position != header.size_bytes:
        raise _damaged(name, f"it has {header.size_bytes} bytes where its header asks for {data_start + position}")
    if not 0 <= header.round < COUNT_LIMIT or not all(math.isfinite(scale) for scale in header.scales.values()):
        raise _damaged(name, "its round or a scale is out of range")
    _check_layers(header, name)
    _check_int8(header, name)


def _check_int8(header: Header, name: str) -> None:
    """Each int8 tensor has scales that broadcast to it, and no other has."""
    for key, info in header.tensors.items():
        scales = header.tensors.get(key + SCALES)
        if (info.dtype == "I8") != (scales is not None) or (scales is not None and not _broadcasts(scales, info)):
            raise _damaged(name, f"tensor {_shown(key)} and its scales do not fit each other")
        if key.endswith(SCALES) and key.removesuffix(SCALES) not in header.tensors:
            raise _damaged(name, f"the scales {_shown(key)} are of no tensor")


def _broadcasts(scales: TensorInfo, info: TensorInfo) -> bool:
    if scales.dtype != "F32" or len(scales.shape) != len(info.shape):
        return False
    return all(one in (1, side) for one, side in zip(scales.shape, info.shape, strict=True))


def _check_layers(header: Header, name: str) -> None:
    names = layers(header)
    if sorted(header.scales) != names:
        raise _damaged(name, "its scales and its layers do not match")
    for layer in names:
        a, b = header.tensors[layer + LORA_A], header.tensors.get(layer + LORA_B)
        if b is None or len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or a.shape[0] < 1:
            raise _damaged(name, f"layer {_shown(layer)} has no factors that fit each other")
    if any(key.endswith(LORA_B) and key.removesuffix(LORA_B) not in header.scales for key in header.tensors):
        raise _damaged(name, "a factor B has no factor A")


def _shown(text: str) -> str:
    """A peer's own words, short and safe to print."""
    return ascii(text[:80])


def _damaged(name: str, problem: str) -> BadData:
    return BadData("snapshot.damaged", f"The snapshot {os.path.basename(name)} is damaged: {problem}.")
