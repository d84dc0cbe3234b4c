"""The coarsest wire format: how far off it is, how small, and what becomes of a file that is not whole."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decaf_node.errors import BadData
from decaf_node.lowrank.adapter import Adapter, distance, is_finite, norm
from decaf_node.lowrank.coarse import in_singular_directions, steps_of
from decaf_node.lowrank.codec import ERROR, read_snapshot, write_snapshot
from decaf_node.lowrank.mixing import AdapterEdge, mix_adapters
from decaf_node.lowrank.product import Product
from decaf_node.snapshot import Wire, read_header
from tests.lowrank.oracle import Factors, dense


def _write(path: Path, adapter: Adapter, wire: Wire = "compact") -> Path:
    write_snapshot(path, adapter, wire=wire, schema="5c4e", base="ba5e", round=7)
    return path


def _trained(layers: int = 3, side: int = 256, rank: int = 8) -> Adapter:
    """Layers of unlike size, whose singular values fall, in factors that show nothing of that."""
    factors = Factors()
    fall = torch.logspace(0, -1.5, rank)
    products = {}
    for number in range(layers):
        turn = factors.orthogonal(rank).float()
        b, a = factors.normal(side, rank) * fall, factors.normal(rank, 2 * side) * fall[:, None]
        products[f"layer.{number}"] = Product(b @ turn * 10.0**-number, turn.mT @ a, 0.5)
    return Adapter(products, {"head": factors.normal(3, 5), "bias": factors.normal(5)})


def _off(read: Adapter, adapter: Adapter) -> float:
    """The relative distance over all layers, by dense matrices."""
    apart = sum(float((dense(read.products[name]) - dense(p)).norm() ** 2) for name, p in adapter.products.items())
    return math.sqrt(apart / sum(float(dense(p).norm() ** 2) for p in adapter.products.values()))


def test_it_is_off_by_what_is_allowed_and_small(tmp_path: Path) -> None:
    adapter = _trained()
    header, read = read_snapshot(_write(tmp_path / "compact", adapter))
    assert (header.schema, header.base, header.round, header.rank) == ("5c4e", "ba5e", 7, 8)
    assert header.size_bytes == (tmp_path / "compact").stat().st_size
    assert {name: product.b.shape for name, product in read.products.items()} == {
        name: product.b.shape for name, product in adapter.products.items()
    }
    assert 0.3 * ERROR < _off(read, adapter) < 1.05 * ERROR
    assert header.size_bytes < 0.1 * _write(tmp_path / "whole", adapter, "float32").stat().st_size


def test_averaged_tensors_are_as_in_int8(tmp_path: Path) -> None:
    adapter = _trained()
    (_, compact), (_, eight) = (read_snapshot(_write(tmp_path / wire, adapter, wire)) for wire in ("compact", "int8"))
    assert compact.tensors.keys() == eight.tensors.keys()
    assert all(torch.equal(tensor, eight.tensors[name]) for name, tensor in compact.tensors.items())


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(0.01, 0.3), st.floats(-20, 20))
@settings(deadline=None, max_examples=30)
def test_fuzz_steps_add_the_error_that_is_asked_for(seed: int, rank: int, error: float, decades: float) -> None:
    """However the factors share the length of their product."""
    factors = Factors(seed)
    products = {
        name: Product(factors.normal(40, rank) * 10**decades, factors.normal(rank, 30) * 10**-decades, 2.0)
        for name in "ab"
    }
    adapter = in_singular_directions(Adapter(products, {}))
    steps = steps_of(adapter, error)
    rounded = {}
    for name, p in adapter.products.items():
        of_b, of_a = (step.double() for step in steps[name])
        rounded[name] = Product((p.b / of_b).round() * of_b, (p.a / of_a).round() * of_a, p.scale)
    assert _off(Adapter(rounded, {}), adapter) < 1.2 * error


def test_a_layer_that_is_not_trained_yet_and_one_that_is_all_there_is(tmp_path: Path) -> None:
    factors = Factors()
    products = {"new": factors.fresh(40, 4, 30), "old": factors.product(40, 4, 30)}
    _, read = read_snapshot(_write(tmp_path / "both", Adapter(products, {})))
    assert _off(read, Adapter(products, {})) < 1.05 * ERROR
    assert not dense(read.products["new"]).any()
    _, read = read_snapshot(_write(tmp_path / "new", Adapter({"new": products["new"]}, {})))
    assert not dense(read.products["new"]).any()
    _, read = read_snapshot(_write(tmp_path / "none", Adapter({}, {"head": factors.normal(2, 2)})))
    assert is_finite(read)


def test_a_direction_that_wants_more_numbers_than_int8_has_gets_its_steps(tmp_path: Path) -> None:
    b, a = torch.zeros(300, 2), torch.zeros(2, 300)
    b[:, 0], a[0, :], b[0, 1], a[1, 0] = 1.0, 1.0, 1e-3, 1e-3
    b[7, 0] = 1e3
    adapter = Adapter({"layer": Product(b, a)}, {})
    assert _off(read_snapshot(_write(tmp_path / "snapshot", adapter))[1], adapter) < 0.5 * ERROR


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_adapters_of_any_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    adapter = _trained()
    products = {name: Product(p.b.to(dtype), p.a.to(dtype), p.scale) for name, p in adapter.products.items()}
    _, read = read_snapshot(_write(tmp_path / "snapshot", Adapter(products, adapter.tensors)))
    assert _off(read, Adapter(products, {})) < 1.05 * ERROR


def _bomb(data: bytes) -> bytes:
    """What says that it is as long as the true one, and goes on."""
    return gzip.compress(gzip.decompress(data) + bytes(10**6))[:-4] + data[-4:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-1],
    "cut in the middle": lambda data: data[: len(data) // 2],
    "only its magic": lambda data: data[:3],
    "only gzip's own header": lambda data: data[:10],
    "a bit turned": lambda data: data[:-100] + bytes([data[-100] ^ 4]) + data[-99:],
    "another checksum": lambda data: data[:-8] + bytes(4) + data[-4:],
    "another length": lambda data: data[:-4] + struct.pack("<I", 7),
    "appended": lambda data: data + b"\0",
    "twice": lambda data: data + data,
    "more than it says": _bomb,
    "no snapshot": lambda data: gzip.compress(b"x" * 1000),
    "in one another": gzip.compress,
    "a name of its own": lambda data: data[:3] + b"\x08" + data[4:10] + b"x" * 10_000 + b"\0" + data[10:],
    "after empty ones": lambda data: gzip.compress(b"") * 1000 + data,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = _write(tmp_path / "snapshot", _trained())
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(BadData) as refused:
        read_snapshot(path)
    assert refused.value.reason == "snapshot.damaged"


def test_what_holds_much_more_than_it_weighs_is_not_inflated(tmp_path: Path) -> None:
    """However honest it is about it."""
    zeros = Adapter({"layer": Product(torch.zeros(1000, 8), torch.zeros(8, 5000), 1.0)}, {})
    path = _write(tmp_path / "snapshot", zeros)
    assert path.stat().st_size < 5_000
    assert not dense(read_snapshot(path, 60_000)[1].products["layer"]).any()
    with pytest.raises(BadData, match=r"holds \d+ bytes, deflated, and this node takes 40000") as refused:
        read_snapshot(path, 40_000)
    assert refused.value.reason == "snapshot.too-large"


def test_a_rank_that_the_shape_cannot_fill(tmp_path: Path) -> None:
    adapter = Adapter({"layer": Factors().product(5, 8, 30, 2.0)}, {})
    _, read = read_snapshot(_write(tmp_path / "snapshot", adapter))
    assert read.products["layer"].rank == 8
    assert _off(read, adapter) < 1.05 * ERROR


def _mixed_only(folder: Path, wire: Wire, rounds: int) -> tuple[float, float]:
    """Mix four nodes that do not train; return how far their mean went, and what became of its norm, in parts of it."""
    nodes = [Adapter({"layer": Factors(seed).product(96, 8, 96)}, {}) for seed in range(4)]
    start = mix_adapters(nodes[0], [AdapterEdge(nodes[0], node, 0.25) for node in nodes[1:]]).adapter
    for _ in range(rounds):
        sent = [read_snapshot(_write(folder / f"{number}", node, wire))[1] for number, node in enumerate(nodes)]
        nodes = [
            mix_adapters(node, [AdapterEdge(sent[me], other, 0.25) for other in sent if other is not sent[me]]).adapter
            for me, node in enumerate(nodes)
        ]
    mean = mix_adapters(nodes[0], [AdapterEdge(nodes[0], node, 0.25) for node in nodes[1:]]).adapter
    return distance(mean, start) / norm(start), norm(mean) / norm(start) - 1


def test_what_the_mean_of_the_mesh_loses_in_rounds_of_mixing_alone(tmp_path: Path) -> None:
    """In int8 nothing; in compact some, as what the cut takes of its errors is not the same at all ends."""
    moved, grown = _mixed_only(tmp_path, "int8", 20)
    assert moved < 1e-3
    assert abs(grown) < 1e-3
    moved, grown = _mixed_only(tmp_path, "compact", 20)
    assert moved < ERROR
    assert abs(grown) < 0.3 * ERROR


@given(st.binary(max_size=200))
def test_fuzz_any_gzip_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(BadData):
        read_header(path)
