"""Invitations as lines."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.daemon.join_token import PREFIX, JoinToken, read_token, write_token
from decaf_node.errors import UsageError

TOKEN = JoinToken("lab", ("10.0.0.5:7434", "[fe80::1%eth0]:7434"), bytes(range(32)), bytes(16))
NAMES = st.text(min_size=1, max_size=63).filter(str.isprintable)
ADDRESSES = st.lists(st.builds("{}:{}".format, st.ip_addresses(v=4).map(str), st.integers(1, 65535)), max_size=8).map(
    tuple
)


@given(NAMES, ADDRESSES, st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
def test_a_token_comes_back(mesh: str, addresses: tuple[str, ...], authority: bytes, secret: bytes) -> None:
    token = JoinToken(mesh, addresses, authority, secret)
    line = write_token(token)
    assert line.isascii()
    assert len(line.split()) == 1
    assert read_token(f"  {line}\n") == token


def test_the_secret_is_not_shown_by_accident() -> None:
    assert "secret" not in repr(TOKEN)
    assert write_token(TOKEN).startswith(PREFIX)


@given(st.data())
def test_a_damaged_line_is_refused(data: st.DataObject) -> None:
    line = write_token(TOKEN)
    place = data.draw(st.integers(0, len(line) - 1))
    match data.draw(st.sampled_from(["cut", "change"])):
        case "cut":
            damaged = line[:place]
        case _:
            damaged = line[:place] + data.draw(st.sampled_from("AQgw_-9!ä")) + line[place + 1 :]
    if damaged == line:
        return
    with contextlib.suppress(UsageError):
        assert read_token(damaged) == TOKEN  # the last character has bits that mean nothing
        assert place == len(line) - 1


@given(st.one_of(st.text(), st.text().map(PREFIX.__add__), st.binary().map(lambda raw: PREFIX + raw.hex())))
def test_anything_else_is_refused(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_token(line)
    assert caught.value.reason == "join.token-damaged"


def test_a_huge_line_is_refused() -> None:
    with pytest.raises(UsageError):
        read_token(PREFIX + "A" * 1_000_000)
