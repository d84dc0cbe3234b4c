"""Weights out of an ONNX file, which is put together here byte by byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.onnx import read_weights

FLOAT, INT64 = 1, 7


def varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, kind: int, values: NDArray[Any], packed: bool) -> bytes:
    dims = [field(1, b"".join(map(varint, values.shape)))] if packed else [field(1, side) for side in values.shape]
    return field(5, b"".join(dims) + field(2, kind) + field(8, name.encode()) + field(9, values.tobytes()))


def node(kind: str, name: str, *inputs: str) -> bytes:
    parts = [field(1, one.encode()) for one in inputs] + [field(3, name.encode()), field(4, kind.encode())]
    return field(1, b"".join(parts))


def test_a_matrix_is_named_after_its_layer_and_turned_as_torch_has_it(tmp_path: Path) -> None:
    bias = np.arange(2, dtype=np.float32)
    matrix = np.arange(600, dtype=np.float32).reshape(300, 2)
    shape = np.array([1, 2])
    graph = [
        node("MatMul", "/layer.0/dense/MatMul", "hidden", "onnx::MatMul_7"),
        node("MatMul", "/attention/MatMul", "query", "key"),
        node("Add", "/layer.0/dense/Add", "hidden", "layer.0.dense.bias"),
        tensor("layer.0.dense.bias", FLOAT, bias, packed=False),
        tensor("onnx::MatMul_7", FLOAT, matrix, packed=True),
        tensor("shape", INT64, shape, packed=False),
    ]
    version, fixed = field(1, 8), varint(3 << 3 | 5) + bytes(4)
    (tmp_path / "model.onnx").write_bytes(version + fixed + field(7, b"".join(graph)))
    weights = read_weights(tmp_path / "model.onnx")
    assert weights.keys() == {"layer.0.dense.bias", "layer.0.dense.weight"}
    assert np.array_equal(weights["layer.0.dense.bias"], bias)
    assert np.array_equal(weights["layer.0.dense.weight"], matrix.T)
