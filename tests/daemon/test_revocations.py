"""Revocations: one signed list, of which the newest counts."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.daemon.certificates import (
    Issuer,
    check_chain,
    found_authority,
    inviters_of,
    issue_inviter,
    issue_member,
    read_chain,
)
from decaf_node.daemon.identity import new_identity
from decaf_node.daemon.let_in import LetIn
from decaf_node.daemon.revocations import FILE, Revocations
from decaf_node.daemon.security import MutualTls
from decaf_node.daemon.signing import Signing
from decaf_node.daemon.trust_wire import Body, Revoked, Signed, read_body, read_signed, write_body, write_signed
from decaf_node.errors import BadData, NotAllowed
from tests.daemon.trusted import Authority

NOW = time.time()
AUTHORITY = found_authority("lab", NOW)
A, B, C, D = ("A" * 52, "B" * 52, "C" * 52, "D" * 52)
NODES = st.text("ABCDEFG234567", min_size=52, max_size=52)
NOBODY: frozenset[str] = frozenset()


def known(folder: Path) -> Revocations:
    folder.mkdir(exist_ok=True)
    return Revocations(folder, AUTHORITY.certificate)


def test_who_is_revoked_is_refused_also_after_a_restart(tmp_path: Path) -> None:
    revocations = known(tmp_path / "a")
    changes: list[int] = []
    revocations.changed = lambda: changes.append(revocations.number)
    assert revocations.refusal(A) == ""
    revocations.revoke(AUTHORITY, A, NOBODY, NOW)
    revocations.revoke(AUTHORITY, B, NOBODY, NOW)
    assert changes == [1, 2]
    for each in (revocations, known(tmp_path / "a")):
        assert each.number == 2
        assert [each.refusal(node) != "" for node in (A, B, C)] == [True, True, False]


def test_of_an_inviter_those_it_had_let_in_stay(tmp_path: Path) -> None:
    revocations = known(tmp_path)
    revocations.revoke(AUTHORITY, A, frozenset({B}), NOW)
    assert revocations.refusal(A)
    assert revocations.refusal(B, A) == ""
    assert revocations.refusal(C, A)
    assert revocations.refusal(C) == ""


def test_lists_spread_and_the_newest_counts(tmp_path: Path) -> None:
    founder, member = known(tmp_path / "f"), known(tmp_path / "m")
    founder.revoke(AUTHORITY, A, NOBODY, NOW)
    first = founder.signed
    founder.revoke(AUTHORITY, B, NOBODY, NOW)
    assert first is not None
    assert founder.signed is not None
    assert member.learn(founder.signed)
    assert not member.learn(founder.signed)
    assert not member.learn(first), "an old list takes nobody back"
    assert member.refusal(B)


def test_only_the_authority_revokes(tmp_path: Path) -> None:
    identity = new_identity()
    inviter = issue_inviter(AUTHORITY, identity.key.public_key(), NOW, 1000.0)
    with pytest.raises(NotAllowed) as caught:
        known(tmp_path).revoke(Issuer(inviter, identity.key, (inviter,)), A, NOBODY, NOW)
    assert caught.value.reason == "revoke.not-founder"
    other = known(tmp_path / "other")
    other._authority = found_authority("lab", NOW).certificate
    with pytest.raises(NotAllowed):
        other.revoke(AUTHORITY, A, NOBODY, NOW)


def test_a_list_of_another_mesh_or_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    founder, member = known(tmp_path / "f"), known(tmp_path / "m")
    founder.revoke(AUTHORITY, A, NOBODY, NOW)
    signed = founder.signed
    assert signed is not None
    stranger = found_authority("lab", NOW)
    theirs = Revocations(tmp_path / "f", AUTHORITY.certificate)
    with pytest.raises(BadData):
        Revocations(tmp_path / "f", stranger.certificate)
    assert theirs.number == 1
    for body, signature in (
        (signed.body + b"\x00", signed.signature),
        (signed.body[:-1], signed.signature),
        (signed.body, signed.signature[:-1]),
        (signed.body, b""),
        (b"", signed.signature),
    ):
        with pytest.raises(BadData) as caught:
            member.learn(Signed(body, signature))
        assert caught.value.reason == "revocations.damaged"
    assert member.number == 0


def test_a_damaged_file_is_said_and_not_passed_over(tmp_path: Path) -> None:
    known(tmp_path).revoke(AUTHORITY, A, NOBODY, NOW)
    kept = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(kept[:-3])
    with pytest.raises(BadData) as caught:
        known(tmp_path)
    assert caught.value.reason == "revocations.damaged-file"
    assert str(tmp_path / FILE) in caught.value.message


@given(st.dictionaries(NODES, st.frozensets(NODES, max_size=3), max_size=5), st.integers(1, 2**53))
def test_bodies_come_back(revoked: dict[str, frozenset[str]], number: int) -> None:
    body = Body(bytes(32), number, tuple(Revoked(node, 5, kept) for node, kept in revoked.items()))
    assert read_body(write_body(body)) == body


def test_there_is_a_limit() -> None:
    nodes = [f"{number:052d}".translate(str.maketrans("0189", "ABCD")) for number in range(1025)]
    with pytest.raises(BadData) as caught:
        write_body(Body(bytes(32), 1, tuple(Revoked(node, 1) for node in nodes)))
    assert caught.value.reason == "revocations.full"


@given(st.binary(max_size=500))
def test_bytes_are_no_list(data: bytes) -> None:
    with contextlib.suppress(BadData):
        read_body(data)
    with contextlib.suppress(BadData):
        assert read_signed(write_signed(read_signed(data))) == read_signed(data)


def test_who_let_whom_in_is_kept(tmp_path: Path) -> None:
    let_in = LetIn(tmp_path)
    let_in.note(B, (A, D))
    let_in.note(C, (A,))
    let_in.note(D, ())
    let_in.note(C, ())  # the authority has renewed it
    for each in (let_in, LetIn(tmp_path)):
        assert each.by(A) == {B}
        assert each.by(D) == {B}
    (tmp_path / "let-in.json").write_text(f'{{"{B}": "{A}"}}')  # as it was kept once
    assert LetIn(tmp_path).by(A) == {B}


def test_a_certificate_that_another_inviter_has_renewed_rests_on_the_first_too(tmp_path: Path) -> None:
    """So nobody whom a revoked inviter has let in can stay by having it renewed elsewhere."""
    first, second, member = new_identity(), new_identity(), new_identity()
    signers = [
        Issuer(chain, each.key, (chain,))
        for each in (first, second)
        for chain in [issue_inviter(AUTHORITY, each.key.public_key(), NOW, 10_000.0)]
    ]
    public = member.key.public_key()
    shown = issue_member(signers[0], public, NOW, 1000.0)[0]
    assert inviters_of(shown) == (first.node,)
    signing = Signing(lambda: signers[1], tmp_path, 1000.0)
    renewed = read_chain(signing.certificate(public, inviters_of(shown)), "it")
    check_chain(renewed, AUTHORITY.certificate, NOW)
    assert inviters_of(renewed[0]) == (second.node, first.node)
    again = read_chain(signing.certificate(public, inviters_of(renewed[0])), "it")
    assert inviters_of(again[0]) == (second.node, first.node)
    revocations = known(tmp_path)
    revocations.revoke(AUTHORITY, first.node, NOBODY, NOW)
    tls = MutualTls(Authority().papers(), revocations)
    with pytest.raises(NotAllowed):
        tls.admit(renewed[0])
    founder = Signing(lambda: AUTHORITY, tmp_path, 1000.0)
    clean = read_chain(founder.certificate(public, inviters_of(renewed[0])), "it")
    assert inviters_of(clean[0]) == ()
    assert tls.admit(clean[0]) == member.node, "the founder knows whom it revokes"
    with pytest.raises(NotAllowed):
        signing.certificate(public, [f"{letter}" * 52 for letter in "ABCDEFGHI"])
