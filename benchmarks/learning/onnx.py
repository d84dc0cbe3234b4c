"""The weights in an ONNX file, read without the package onnx: of its protobuf messages only these are needed.

Numbers of fields as in onnx.proto3: ModelProto.graph 7; GraphProto.node 1, initializer 5; NodeProto.input 1, name 3,
op_type 4; TensorProto.dims 1, data_type 2, name 8, raw_data 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FLOAT = 1  # TensorProto.DataType
FIXED = {1: 8, 5: 4}  # bytes of a field by its wire type
Array = NDArray[np.float32]


def read_weights(path: Path) -> dict[str, Array]:
    """Return every float32 tensor by its name.

    Torch's exporter leaves the matrices of linear layers nameless and transposed: they are turned back, and named after
    the layer that multiplies by them.
    """
    graph = memoryview(_bytes(memoryview(path.read_bytes()), 7)[0])
    tensors = dict(_tensor(tensor) for tensor in _bytes(graph, 5) if _numbers(tensor, 2) == [FLOAT])
    for node in _bytes(graph, 1):
        name, kind = (str(_bytes(node, field)[0], "utf-8") for field in (3, 4))
        inputs = [str(one, "utf-8") for one in _bytes(node, 1)]
        if kind == "MatMul" and inputs[1] in tensors:
            layer = name.removeprefix("/").removesuffix("/MatMul").replace("/", ".")
            tensors[f"{layer}.weight"] = tensors.pop(inputs[1]).T
    return tensors


def _tensor(message: memoryview) -> tuple[str, Array]:
    dims = _numbers(message, 1)
    return str(_bytes(message, 8)[0], "utf-8"), np.frombuffer(_bytes(message, 9)[0], "<f4").reshape(dims)


def _bytes(message: memoryview, field: int) -> list[memoryview]:
    return [value for number, value in _fields(message) if number == field and isinstance(value, memoryview)]


def _numbers(message: memoryview, field: int) -> list[int]:
    """Return the integers of a field, which may be packed or not."""
    found: list[int] = []
    for number, value in _fields(message):
        if number == field and isinstance(value, int):
            found.append(value)
        elif number == field and isinstance(value, memoryview):
            at = 0
            while at < len(value):
                one, at = _varint(value, at)
                found.append(one)
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field of a protobuf message, but for those of fixed length."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind in FIXED:
            at += FIXED[kind]
            continue
        value, at = _varint(message, at)
        if kind == 0:
            yield number, value
        else:
            yield number, message[at : at + value]
            at += value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
