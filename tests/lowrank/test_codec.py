from __future__ import annotations

import hashlib
import json
import math
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors.torch import load_file

from decaf_node.errors import BadData
from decaf_node.lowrank.adapter import Adapter, is_finite
from decaf_node.lowrank.codec import read_snapshot, write_snapshot
from decaf_node.lowrank.product import Product
from decaf_node.snapshot import Wire, read_header
from tests.lowrank.oracle import Factors

Named = TypeVar("Named", Product, torch.Tensor)


def _adapter() -> Adapter:
    factors = Factors()
    products = {
        "base_model.model.layer.1.query": factors.product(12, 4, 7, 2.0),
        "base_model.model.layer.0.value": factors.product(5, 2, 9, 0.1 + 0.2),
    }
    return Adapter(products, {"classifier.weight": factors.normal(3, 5), "classifier.temperature": torch.tensor(1.5)})


def _write(path: Path, adapter: Adapter, wire: Wire = "float32") -> Path:
    write_snapshot(path, adapter, wire=wire, schema="5c4e", base="ba5e", round=7)
    return path


def _reversed(named: Mapping[str, Named]) -> dict[str, Named]:
    return {name: named[name] for name in reversed(list(named))}


@pytest.mark.parametrize("wire", ["float32", "bfloat16", "float16"])
def test_what_is_written_is_read(tmp_path: Path, wire: Wire) -> None:
    dtype = getattr(torch, wire)
    adapter = _adapter()
    header, read = read_snapshot(_write(tmp_path / "snapshot", adapter, wire))
    assert (header.schema, header.base, header.round, header.rank) == ("5c4e", "ba5e", 7, 4)
    assert read.products.keys() == adapter.products.keys()
    assert read.tensors.keys() == adapter.tensors.keys()
    for name, product in adapter.products.items():
        assert torch.equal(read.products[name].b, product.b.to(dtype))
        assert torch.equal(read.products[name].a, product.a.to(dtype))
        assert read.products[name].scale == product.scale == header.scales[name]
    for name, tensor in adapter.tensors.items():
        assert torch.equal(read.tensors[name], tensor.to(dtype))
        assert read.tensors[name].shape == tensor.shape


def test_what_was_rounded_once_stays(tmp_path: Path) -> None:
    first = _write(tmp_path / "first", _adapter(), "bfloat16")
    _, read = read_snapshot(first)
    assert _write(tmp_path / "second", read, "bfloat16").read_bytes() == first.read_bytes()


@pytest.mark.parametrize("wire", ["float32", "compact"])
def test_the_same_content_is_the_same_bytes(tmp_path: Path, wire: Wire) -> None:
    adapter = _adapter()
    backwards = Adapter(_reversed(adapter.products), _reversed(adapter.tensors))
    digests = set()
    for number, same in enumerate((adapter, backwards, _adapter())):
        digests.add(hashlib.sha256(_write(tmp_path / str(number), same, wire).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_layout_of_a_factor_in_memory_does_not_matter(tmp_path: Path) -> None:
    product = _adapter().products["base_model.model.layer.1.query"]
    strided = Product(product.b.T.contiguous().T, product.a.T.contiguous().T, product.scale)
    plain = _write(tmp_path / "plain", Adapter({"q": product}, {}))
    assert _write(tmp_path / "strided", Adapter({"q": strided}, {})).read_bytes() == plain.read_bytes()


def test_other_tools_can_read_it(tmp_path: Path) -> None:
    adapter = _adapter()
    tensors = load_file(_write(tmp_path / "adapter_model.safetensors", adapter))
    name = "base_model.model.layer.1.query"
    assert torch.equal(tensors[f"{name}.lora_A.weight"], adapter.products[name].a)
    assert torch.equal(tensors[f"{name}.lora_B.weight"], adapter.products[name].b)


@pytest.mark.parametrize("wire", ["float32", "compact"])
def test_the_header_is_read_without_torch(tmp_path: Path, wire: Wire) -> None:
    path = _write(tmp_path / "snapshot", _adapter(), wire)
    script = (
        "import sys; from pathlib import Path; from decaf_node.snapshot import read_header\n"
        "header = read_header(Path(sys.argv[1]))\n"
        "assert 'torch' not in sys.modules\n"
        "print(header.round, header.rank, len(header.scales), header.size_bytes)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["7", "4", "2", str(path.stat().st_size)]


def test_trained_parameters_are_written(tmp_path: Path) -> None:
    adapter = _adapter()
    for product in adapter.products.values():
        product.a.requires_grad_()
    _, read = read_snapshot(_write(tmp_path / "snapshot", adapter))
    assert not any(product.a.requires_grad for product in read.products.values())


def test_what_does_not_fit_float16_is_refused(tmp_path: Path) -> None:
    adapter = _adapter()
    adapter.products["base_model.model.layer.0.value"].b[1, 1] = 1e5
    with pytest.raises(BadData, match=r"layer\.0\.value\.lora_B\.weight is too large for torch\.float16") as refused:
        _write(tmp_path / "snapshot", adapter, "float16")
    assert refused.value.reason == "snapshot.overflow"
    _write(tmp_path / "snapshot", adapter, "bfloat16")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_read_and_told(tmp_path: Path, bad: float) -> None:
    adapter = _adapter()
    adapter.tensors["classifier.weight"][0, 0] = bad
    _, read = read_snapshot(_write(tmp_path / "snapshot", adapter, "float16"))
    assert not is_finite(read)


@pytest.mark.parametrize("shrunk", [1.0, 1e-3, 0.0])
def test_int8_is_off_by_half_a_step_of_its_direction_at_most(tmp_path: Path, shrunk: float) -> None:
    """One direction may be weak or dead, as all are at first; its numbers are told by a scale of its own."""
    adapter = _adapter()
    for product in adapter.products.values():
        product.b[:, 0] *= shrunk
        product.a[1] *= 1e3
    _, read = read_snapshot(_write(tmp_path / "snapshot", adapter, "int8"))
    assert read.products.keys() == adapter.products.keys()
    assert read.tensors.keys() == adapter.tensors.keys()
    for name, product in adapter.products.items():
        for axis, before, after in ((0, product.b, read.products[name].b), (1, product.a, read.products[name].a)):
            assert after.dtype == torch.float32
            assert ((after - before).abs() <= 0.501 / 127 * before.abs().amax(axis, keepdim=True)).all()
    head, vector = adapter.tensors["classifier.weight"], adapter.tensors["classifier.temperature"]
    assert ((read.tensors["classifier.weight"] - head).abs() <= 0.501 / 127 * head.abs().amax(1, keepdim=True)).all()
    assert torch.equal(read.tensors["classifier.temperature"], vector)


def test_int8_is_a_quarter_of_the_bytes(tmp_path: Path) -> None:
    adapter = Adapter({f"layer.{number}": Factors().product(1024, 16, 1024, 2.0) for number in range(8)}, {})
    sizes = [_write(tmp_path / "snapshot", adapter, wire).stat().st_size for wire in ("int8", "float32")]
    assert sizes[0] < 0.26 * sizes[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_told_in_int8_too(tmp_path: Path, bad: float) -> None:
    adapter = _adapter()
    adapter.products["base_model.model.layer.1.query"].b[3, 2] = bad
    _, read = read_snapshot(_write(tmp_path / "snapshot", adapter, "int8"))
    assert not is_finite(read)


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _cut_in_the_header(data: bytes) -> bytes:
    return data[:100]


def _empty(data: bytes) -> bytes:
    return b""


def _appended(data: bytes) -> bytes:
    return data + b"\0"


def _header_of_nonsense(data: bytes) -> bytes:
    return data[:8] + b"x" * (len(data) - 8)


def _header_too_long(data: bytes) -> bytes:
    return struct.pack("<Q", 2**60) + data[8:]


def _with(change: Callable[[dict[str, dict[str, object]]], object]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        length = struct.unpack("<Q", data[:8])[0]
        document = json.loads(data[8 : 8 + length])
        change(document)
        header = json.dumps(document).encode()
        return struct.pack("<Q", len(header)) + header + data[8 + length :]

    return changed


def _add_empty(document: dict[str, Any]) -> None:
    end = max(part["data_offsets"][1] for name, part in document.items() if name != "__metadata__")
    document["empty"] = {"dtype": "F32", "shape": [0, 2**62, 4], "data_offsets": [end, end]}


A = "base_model.model.layer.1.query.lora_A.weight"
DAMAGES = {
    "cut": _cut,
    "cut in the header": _cut_in_the_header,
    "empty": _empty,
    "appended": _appended,
    "header of nonsense": _header_of_nonsense,
    "header too long": _header_too_long,
    "no metadata": _with(lambda document: document.pop("__metadata__")),
    "another format": _with(lambda document: document["__metadata__"].update(format="decaf-node/99")),
    "a scale missing": _with(lambda document: document["__metadata__"].update(scales="{}")),
    "a partner missing": _with(lambda document: document.update(other=document.pop(A))),
    "a shape that lies": _with(lambda document: document[A].update(shape=[4, 70])),
    "an unknown dtype": _with(lambda document: document[A].update(dtype="F8_E4M3")),
    "an empty tensor whose strides overflow": _with(_add_empty),
    "a factor that is a vector": _with(lambda document: document[A].update(shape=[28])),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_refused(tmp_path: Path, damage: str) -> None:
    path = _write(tmp_path / "snapshot", _adapter())
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(BadData) as refused:
        read_snapshot(path)
    assert refused.value.reason == "snapshot.damaged"


SCALES_OF_A = f"{A}.int8_scales"
INT8_DAMAGES = {
    "scales of no tensor": lambda document: document.update({"x.int8_scales": document.pop(SCALES_OF_A)}),
    "scales that do not broadcast": lambda document: document[SCALES_OF_A].update(shape=[2, 2]),
    "scales of another dimension": lambda document: document[SCALES_OF_A].update(shape=[4]),
    "scales that are none": lambda document: document[SCALES_OF_A].update(dtype="I8", shape=[4, 4]),
    "a tensor that needs no scales": lambda document: document.update(
        {f"{A}.int8_scales": document["classifier.temperature"], "classifier.temperature": document[SCALES_OF_A]}
    ),
}


@pytest.mark.parametrize("damage", INT8_DAMAGES)
def test_damaged_int8_is_refused(tmp_path: Path, damage: str) -> None:
    path = _write(tmp_path / "snapshot", _adapter(), "int8")
    path.write_bytes(_with(INT8_DAMAGES[damage])(path.read_bytes()))
    with pytest.raises(BadData) as refused:
        read_snapshot(path)
    assert refused.value.reason == "snapshot.damaged"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData) as refused:
        read_snapshot(tmp_path / "nowhere")
    assert refused.value.reason == "snapshot.unreadable"


@pytest.mark.parametrize("padding", range(8))
def test_a_header_of_any_length_is_read(tmp_path: Path, padding: int) -> None:
    path = _write(tmp_path / "snapshot", _adapter())
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = data[8 : 8 + length].rstrip() + b" " * padding
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    _, read = read_snapshot(path)
    name = "base_model.model.layer.1.query"
    assert torch.equal(read.products[name].a, _adapter().products[name].a)
    assert read_header(path).round == 7
