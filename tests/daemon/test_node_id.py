"""Node IDs as people see and type them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.daemon.node_id import ALPHABET, printed, read_node, short
from decaf_node.errors import UsageError

NODES = st.text(ALPHABET, min_size=52, max_size=52)


@given(NODES)
def test_what_is_printed_is_read_back(node: str) -> None:
    text = printed(node)
    assert len(text) == 69
    assert text.startswith(short(node))
    assert read_node(text) == read_node(text.lower().replace("-", " ")) == read_node(node) == node


@given(NODES, st.integers(0, 55), st.sampled_from(ALPHABET))
def test_one_wrong_character_is_seen(node: str, place: int, other: str) -> None:
    text = printed(node).replace("-", "")
    if text[place] == other:
        return
    with pytest.raises(UsageError) as caught:
        read_node(text[:place] + other + text[place + 1 :])
    assert caught.value.reason == "node.mistyped"


@given(st.text(max_size=300))
def test_anything_else_is_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert len(read_node(text)) == 52
