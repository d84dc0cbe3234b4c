from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.errors import BadData
from decaf_node.snapshot import FORMAT, Header, digest_of, layers, metadata, parse_header, read_header

LAYER = "model.q_proj"
A, B = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"


def document(**changes: Any) -> dict[str, Any]:
    """The header of a snapshot with one layer (d=3, r=2, k=4) and a bias; ``changes`` go into its metadata."""
    return {
        "__metadata__": {**metadata("5c", "ba", 7, {LAYER: 0.5}), **changes},
        A: {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
        B: {"dtype": "BF16", "shape": [3, 2], "data_offsets": [32, 44]},
        "bias": {"dtype": "F16", "shape": [3], "data_offsets": [44, 50]},
    }


def snapshot(header: Any, data: int = 50) -> bytes:
    return raw_snapshot(json.dumps(header).encode(), data)


def raw_snapshot(header: bytes, data: int = 50) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(data)


def parse(content: bytes) -> Header:
    return parse_header(io.BytesIO(content), len(content), "/spool/peer.safetensors")


def refusal(content: bytes) -> str:
    with pytest.raises(BadData) as caught:
        parse(content)
    assert caught.value.reason == "snapshot.damaged"
    assert len(caught.value.message) < 400
    caught.value.message.encode()
    return caught.value.message


def test_a_whole_snapshot_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "whole"
    path.write_bytes(snapshot(document()))
    header = read_header(path)
    assert (header.schema, header.base, header.round, header.rank) == ("5c", "ba", 7, 2)
    assert header.scales == {LAYER: 0.5}
    assert layers(header) == [LAYER]
    assert header.tensors[B].shape == (3, 2)
    assert header.size_bytes == path.stat().st_size
    assert header.metadata() == document()["__metadata__"]
    assert digest_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_is_not_there_is_bad_data(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"cannot be read.*\[snapshot.unreadable\]"):
        read_header(tmp_path / "gone")


@pytest.mark.parametrize("length", range(0, len(snapshot(document())), 7))
def test_a_truncated_snapshot_is_refused(length: int) -> None:
    refusal(snapshot(document())[:length])


def test_a_byte_too_many_is_refused() -> None:
    assert "bytes where its header asks for" in refusal(snapshot(document()) + b"\0")


@pytest.mark.parametrize(
    ("key", "info", "problem"),
    [
        (A, {"dtype": "F64", "shape": [1, 4], "data_offsets": [0, 32]}, "has dtype 'F64'"),
        (A, {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 32]}, "does not lie where its shape says"),
        (A, {"dtype": "F32", "shape": [2, 4], "data_offsets": [1, 33]}, "does not lie"),
        (B, {"dtype": "BF16", "shape": [3, 2], "data_offsets": [0, 12]}, "does not lie"),
        (B, {"dtype": "BF16", "shape": [2, 3], "data_offsets": [32, 44]}, "no factors that fit"),
        (B, {"dtype": "BF16", "shape": [6], "data_offsets": [32, 44]}, "no factors that fit"),
        (A, {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, "does not parse"),
        (A, {"dtype": "F32", "shape": [-2, -4], "data_offsets": [0, 32]}, "does not parse"),
        (A, {"dtype": "F32", "shape": [2.0, 4], "data_offsets": [0, 32]}, "does not parse"),
        (A, {"dtype": "F32", "shape": [True, 8], "data_offsets": [0, 32]}, "does not parse"),
        (A, {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32, 64]}, "does not parse"),
        (A, {"dtype": "F32", "shape": [2, 4]}, "does not parse"),
        (A, "F32", "does not parse"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(key: str, info: Any, problem: str) -> None:
    assert problem in refusal(snapshot({**document(), key: info}))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format": "decaf-node/2"}, f"its format is not {FORMAT}"),
        ({"round": "-1"}, "out of range"),
        ({"round": str(2**63)}, "out of range"),
        ({"round": "seven"}, "does not parse"),
        ({"round": math.inf}, "does not parse"),
        ({"scales": "{}"}, "its scales and its layers do not match"),
        ({"scales": json.dumps({LAYER: 1, "other": 1})}, "do not match"),
        ({"scales": json.dumps({LAYER: math.nan})}, "out of range"),
        ({"scales": json.dumps({LAYER: 10**400})}, "does not parse"),
        ({"scales": "[" * 100_000}, "does not parse"),
        ({"scales": None}, "does not parse"),
        ({"schema": "\ud800"}, "does not parse"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(changes: dict[str, Any], problem: str) -> None:
    assert problem in refusal(snapshot(document(**changes)))


@pytest.mark.parametrize("missing", ["__metadata__", A, B])
def test_what_is_missing_is_missed(missing: str) -> None:
    header = document()
    del header[missing]
    refusal(snapshot(header))


def test_a_factor_b_alone_is_refused() -> None:
    alone = {
        "__metadata__": metadata("5c", "ba", 7, {}),
        B: {"dtype": "BF16", "shape": [3, 2], "data_offsets": [0, 12]},
    }
    assert "a factor B has no factor A" in refusal(snapshot(alone, data=12))


def test_a_name_that_no_message_can_carry_is_refused() -> None:
    header = document()
    header["\ud800"] = header.pop("bias")
    refusal(snapshot(header))


def test_only_utf8_is_read() -> None:
    refusal(raw_snapshot(json.dumps(document()).encode("utf-16")))


def test_a_peers_words_are_repeated_shortly() -> None:
    header = document()
    header["\x1b[2J" + "x" * 1_000_000] = {**header.pop("bias"), "dtype": "?" * 1_000_000}
    assert "\x1b" not in refusal(snapshot(header))


@pytest.mark.parametrize("claim", [17 * 2**20, 2**40, 2**64 - 1])
def test_a_lying_length_costs_no_memory(claim: int) -> None:
    content = struct.pack("<Q", claim) + bytes(100)
    tracemalloc.start()
    try:
        with pytest.raises(BadData, match="its header claims"):
            parse_header(io.BytesIO(content), 2**63, "liar")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "shape",
    [[9] * 500_000, [10**4000] * 400, [2**62] * 9],
    ids=["many sides", "huge sides", "a few sides too many"],
)
def test_a_shape_that_multiplies_for_hours_is_refused_at_once(shape: list[int]) -> None:
    began = time.process_time()
    refusal(snapshot({**document(), A: {"dtype": "F32", "shape": shape, "data_offsets": [0, 32]}}))
    assert time.process_time() - began < 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def only_bad_data(content: bytes) -> None:
    try:
        parse(content)
    except BadData as error:
        error.message.encode()


@given(st.binary(max_size=400))
def test_fuzz_any_bytes(content: bytes) -> None:
    only_bad_data(content)


@given(st.binary(max_size=400), st.integers(0, 60))
def test_fuzz_any_header_bytes(header: bytes, data: int) -> None:
    only_bad_data(raw_snapshot(header, data))


@given(st.dictionaries(st.sampled_from(["__metadata__", A, B, "bias"]) | st.text(max_size=8), json_values, max_size=5))
def test_fuzz_any_document(changes: dict[str, Any]) -> None:
    only_bad_data(snapshot({**document(), **changes}))


@given(st.dictionaries(st.sampled_from(["format", "schema", "base", "round", "scales"]), json_values))
def test_fuzz_any_metadata(changes: dict[str, Any]) -> None:
    only_bad_data(snapshot(document(**changes)))


@given(
    st.sampled_from([A, B, "bias"]),
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from(["F32", "BF16", "F16", "I8"]) | json_values,
            "shape": st.lists(st.integers(-1, 2**65), max_size=10) | json_values,
            "data_offsets": st.lists(st.integers(-1, 2**65), max_size=3) | json_values,
        },
    ),
)
def test_fuzz_any_tensor(key: str, changes: dict[str, Any]) -> None:
    header = document()
    only_bad_data(snapshot({**header, key: {**header[key], **changes}}))


@given(st.integers(0, len(snapshot(document())) - 51), st.integers(1, 255))
def test_fuzz_one_byte_of_the_header_flipped(position: int, flip: int) -> None:
    content = bytearray(snapshot(document()))
    content[position] ^= flip
    only_bad_data(bytes(content))
