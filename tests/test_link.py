from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node import link
from decaf_node.errors import BadData

SNAPSHOT = link.File("/run/spool/aa.safetensors", "aa", 12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
words = st.dictionaries(st.text(), json_values)
GIVEN: dict[type, dict[str, st.SearchStrategy[Any]]] = {  # what cannot be built from the annotations alone
    link.TrainerReady: {"parts": words},
    link.Welcome: {"settings": words},
}
KINDS = (*link.FromTrainer.__args__, *link.ToTrainer.__args__)
messages: st.SearchStrategy[link.Message] = st.one_of([st.builds(kind, **GIVEN.get(kind, {})) for kind in KINDS])


@given(messages)
def test_a_message_comes_back_as_it_was(message: link.Message) -> None:
    line = link.encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert repr(link.decode(line)) == repr(message)  # repr: a NaN does not equal itself


def test_a_message_is_one_line_of_json_that_names_its_kind() -> None:
    line = link.encode(link.MixRound(3, (link.MixEdge("ABCD", 0.25, SNAPSHOT, SNAPSHOT),)))
    document = json.loads(line)
    assert document["kind"] == "MixRound"
    assert document["edges"][0]["theirs"] == {"path": SNAPSHOT.path, "digest": "aa", "size_bytes": 12}


def test_a_loss_may_be_infinite() -> None:
    message = link.Progress(1, 2, float("inf"), 0.0)
    assert link.decode(link.encode(message)) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"null",
        b"[]",
        b"{}",
        b'{"kind": "Nothing"}',
        b'{"kind": ["Pause"]}',
        b'{"kind": "SaveFailed", "round": 1}',
        b'{"kind": "SaveFailed", "round": "one", "problem": ""}',
        b'{"kind": "MixRound", "round": 1, "edges": [{"peer": "A"}]}',
        b'{"kind": "Pause"} {"kind": "Pause"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"kind": "Pause", "more": ' + b'{"a":' * 100_000,
        b'{"kind": "SaveFailed", "round": ' + b"9" * 1_000_000 + b', "problem": ""}',
    ],
    ids=lambda line: line[:40].decode(errors="replace"),
)
def test_anything_else_is_refused_at_once(line: bytes) -> None:
    began = time.process_time()
    with pytest.raises(BadData, match=r"\[link.not-a-message\]"):
        link.decode(line)
    assert time.process_time() - began < 2


def only_bad_data(line: bytes) -> None:
    with suppress(BadData):
        link.decode(line)


@given(st.binary(max_size=300))
def test_fuzz_any_bytes(line: bytes) -> None:
    only_bad_data(line)


@given(messages, st.dictionaries(st.text(max_size=8), json_values, max_size=2), st.data())
def test_fuzz_a_message_with_other_values(message: link.Message, more: dict[str, Any], data: st.DataObject) -> None:
    document = json.loads(link.encode(message)) | more
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(json_values)
    only_bad_data(json.dumps(document).encode())


@given(messages, st.data())
def test_fuzz_a_message_cut_short_or_flipped(message: link.Message, data: st.DataObject) -> None:
    line = bytearray(link.encode(message))
    line[data.draw(st.integers(0, len(line) - 1))] ^= data.draw(st.integers(1, 255))
    only_bad_data(bytes(line))
    only_bad_data(bytes(line[: data.draw(st.integers(0, len(line)))]))
