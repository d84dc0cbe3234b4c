"""Invitations and the waiting list: who may come, when, and how often."""

from __future__ import annotations

from pathlib import Path

import pytest

from decaf_node.daemon.invitations import FILE, Invitations
from decaf_node.daemon.waiting_list import WaitingList
from decaf_node.errors import DecafError

A, B, C = "A" * 52, "B" * 52, "C" * 52


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def refused(invitations: Invitations, secret: bytes, node: str) -> str:
    with pytest.raises(DecafError) as caught:
        invitations.redeem(secret, node)
    return caught.value.reason


def test_an_invitation_belongs_to_whoever_uses_it_first(tmp_path: Path) -> None:
    invitations = Invitations(tmp_path, 8)
    secret = invitations.make(60.0, 1)
    invitations.redeem(secret, A)
    invitations.redeem(secret, A)  # its answer was lost
    for each in (invitations, Invitations(tmp_path, 8)):
        assert refused(each, secret, B) == "join.token-used"
        each.redeem(secret, A)
        assert each.open_until() == 0


def test_an_invitation_for_several(tmp_path: Path) -> None:
    invitations = Invitations(tmp_path, 8)
    secret = invitations.make(60.0, 2)
    invitations.redeem(secret, A)
    invitations.redeem(secret, B)
    assert refused(invitations, secret, C) == "join.token-used"


def test_an_invitation_expires(tmp_path: Path) -> None:
    clock = Clock()
    invitations = Invitations(tmp_path, 8, clock)
    secret = invitations.make(60.0, 1)
    assert invitations.open_until() == clock.now + 60
    clock.now += 60
    assert refused(invitations, secret, A) == "join.token-expired"
    clock.now += 30 * 86400
    invitations.make(60.0, 1)
    assert refused(invitations, secret, A) == "join.token-unknown"


def test_only_a_hash_is_kept(tmp_path: Path) -> None:
    secret = Invitations(tmp_path, 8).make(60.0, 1)
    kept = (tmp_path / FILE).read_bytes()
    assert secret not in kept
    assert secret.hex().encode() not in kept
    assert (tmp_path / FILE).stat().st_mode & 0o77 == 0


def test_an_unknown_secret_is_refused(tmp_path: Path) -> None:
    assert refused(Invitations(tmp_path, 8), bytes(16), A) == "join.token-unknown"


def test_there_is_a_limit_of_invitations(tmp_path: Path) -> None:
    invitations = Invitations(tmp_path, 2)
    invitations.make(60.0, 1)
    invitations.make(60.0, 1)
    with pytest.raises(DecafError) as caught:
        invitations.make(60.0, 1)
    assert caught.value.reason == "invite.too-many"


def asked(waiting: WaitingList, node: str, source: str = "10.0.0.1") -> str:
    with pytest.raises(DecafError) as caught:
        waiting.ask(node, "desk", source)
    return caught.value.reason


def test_nobody_may_ask_unless_expected() -> None:
    clock = Clock()
    waiting = WaitingList(8, clock)
    assert asked(waiting, A) == "join.not-expected"
    waiting.open(60.0)
    assert not waiting.ask(A, "desk", "10.0.0.1")
    assert [each.node for each in waiting.waiting()] == [A]
    clock.now += 61
    assert asked(waiting, B) == "join.not-expected"


def test_who_is_approved_is_let_in_when_it_asks_next() -> None:
    waiting = WaitingList(8)
    waiting.open(60.0)
    assert not waiting.approve(A)
    waiting.ask(A, "desk", "10.0.0.1")
    assert waiting.approve(A)
    assert waiting.waiting() == []
    assert waiting.ask(A, "desk", "10.0.0.1")
    waiting.done(A)
    assert not waiting.ask(A, "desk", "10.0.0.1")


def test_who_asks_no_more_is_forgotten() -> None:
    clock = Clock()
    waiting = WaitingList(8, clock)
    waiting.open(600.0)
    waiting.ask(A, "desk", "10.0.0.1")
    clock.now += 31
    assert waiting.waiting() == []
    assert not waiting.approve(A)


def test_one_host_cannot_fill_the_list_and_nor_can_many() -> None:
    waiting = WaitingList(6)
    waiting.open(60.0)
    for number in range(4):
        waiting.ask(f"{number}", "x", "10.0.0.1")
    assert asked(waiting, "5") == "join.too-many-wait"
    waiting.ask("6", "x", "10.0.0.2")
    waiting.ask("7", "x", "10.0.0.3")
    assert asked(waiting, "8", "10.0.0.4") == "join.too-many-wait"


@pytest.mark.parametrize("content", ["{", "[3]", '[{"digest": "x"}]', "[" * 100_000, "\x00"])
def test_a_damaged_file_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(DecafError) as caught:
        Invitations(tmp_path, 8)
    assert caught.value.reason == "state.damaged-file"
