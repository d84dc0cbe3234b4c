"""Certificates: what is signed, what is believed, and what is damaged."""

from __future__ import annotations

import contextlib
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.daemon.certificates import (
    Chain,
    Issuer,
    check_chain,
    check_time,
    fingerprint,
    found_authority,
    inviter_of,
    issue_inviter,
    issue_member,
    load_shown,
    pem_of,
    read_chain,
    read_request,
    request_of,
)
from decaf_node.daemon.node_id import node_of
from decaf_node.errors import BadData, NotAllowed

NOW = time.time()
DAY = 86400.0
AUTHORITY, OTHER = found_authority("lab", NOW), found_authority("lab", NOW)


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


KEY, INVITER_KEY = key(), key()
MEMBER = issue_member(AUTHORITY, KEY.public_key(), NOW, DAY)
INVITER = Issuer(issue_inviter(AUTHORITY, INVITER_KEY.public_key(), NOW, 10 * DAY), INVITER_KEY)
INVITED = issue_member(Issuer(INVITER.certificate, INVITER_KEY, (INVITER.certificate,)), KEY.public_key(), NOW, DAY)


def refused(chain: Chain, now: float = NOW) -> str:
    with pytest.raises(NotAllowed) as caught:
        check_chain(chain, AUTHORITY.certificate, now)
    return caught.value.reason


@pytest.mark.parametrize("chain", [MEMBER, INVITED, (*MEMBER, AUTHORITY.certificate)], ids=["ca", "inviter", "with ca"])
def test_members_are_believed(chain: Chain) -> None:
    check_chain(chain, AUTHORITY.certificate, NOW)
    check_chain(read_chain(pem_of(chain), "it"), AUTHORITY.certificate, NOW)
    assert node_of(chain[0].public_key()) == node_of(KEY.public_key())


def test_who_has_signed_is_known() -> None:
    assert inviter_of(MEMBER[0]) == ""
    assert inviter_of(INVITED[0]) == node_of(INVITER_KEY.public_key())


def test_what_is_not_of_this_mesh_is_refused() -> None:
    assert refused(issue_member(OTHER, KEY.public_key(), NOW, DAY)) == "certificate.other-mesh"
    assert refused(INVITED[:1]) == "certificate.other-mesh"
    assert refused(()) == "certificate.other-mesh"
    assert refused((AUTHORITY.certificate,)) == "certificate.other-mesh"
    assert refused((INVITER.certificate,)) == "certificate.other-mesh", "an inviter's is no member's"


def test_an_inviter_makes_no_inviters_and_a_member_nobody() -> None:
    below = Issuer(INVITER.certificate, INVITER_KEY, (INVITER.certificate,))
    third = key()
    further = Issuer(issue_inviter(below, third.public_key(), NOW, DAY), third)
    chain = issue_member(further, KEY.public_key(), NOW, DAY)
    assert refused((*chain, further.certificate, INVITER.certificate)) == "certificate.other-mesh"
    member = Issuer(MEMBER[0], KEY, MEMBER)
    assert refused(issue_member(member, third.public_key(), NOW, DAY)) == "certificate.other-mesh"


def test_time_is_heeded() -> None:
    assert refused(MEMBER, NOW + 2 * DAY) == "certificate.expired"
    assert refused(MEMBER, NOW - 2 * DAY) == "certificate.not-yet-valid"
    assert refused(MEMBER, 0.0) == "certificate.not-yet-valid"
    longest = issue_member(AUTHORITY, KEY.public_key(), NOW, 1e9)[0]
    assert longest.not_valid_after_utc == AUTHORITY.certificate.not_valid_after_utc


def test_a_request_shows_its_key() -> None:
    assert read_request(request_of(KEY)) == KEY.public_key()


def other_request(signer: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    )
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"0" * 5000,
        other_request(rsa.generate_private_key(65537, 2048)),
        other_request(ec.generate_private_key(ec.SECP384R1())),
        MEMBER[0].public_bytes(serialization.Encoding.DER),
    ],
    ids=["empty", "large", "rsa", "p384", "a certificate"],
)
def test_other_requests_are_refused(der: bytes) -> None:
    with pytest.raises(BadData) as caught:
        read_request(der)
    assert caught.value.reason == "certificate.bad-request"


REQUEST = request_of(KEY)
PEM = pem_of(INVITED)


@given(st.integers(0, len(REQUEST) - 1), st.integers(1, 255))
def test_a_request_with_a_wrong_byte_is_refused(place: int, difference: int) -> None:
    damaged = bytearray(REQUEST)
    damaged[place] ^= difference
    with pytest.raises(BadData):
        read_request(bytes(damaged))


@given(st.binary(max_size=2000))
def test_bytes_are_no_request(data: bytes) -> None:
    with pytest.raises(BadData):
        read_request(data)


@given(st.integers(0, len(PEM) - 1), st.integers(0, 255))
def test_a_chain_with_a_wrong_byte_is_refused_or_the_same(place: int, byte: int) -> None:
    damaged = bytearray(PEM)
    damaged[place] = byte
    try:
        chain = read_chain(bytes(damaged), "it")
        check_chain(chain, AUTHORITY.certificate, NOW)
    except (BadData, NotAllowed):
        return
    assert chain[0] == INVITED[0], "white space, or what surrounds the base64"


@given(st.binary(max_size=2000))
def test_bytes_are_no_chain(data: bytes) -> None:
    with pytest.raises(BadData):
        read_chain(data, "it")


def test_fingerprints_differ() -> None:
    assert len({fingerprint(each.certificate) for each in (AUTHORITY, OTHER, INVITER)}) == 3


def test_a_certificate_is_read_all_at_once_or_not_at_all() -> None:
    """The library reads fields when they are asked for, raises late, and only warns of a name that is empty."""
    der = MEMBER[0].public_bytes(serialization.Encoding.DER)
    assert load_shown(der) == load_shown(pem_of(MEMBER[:1])) == MEMBER[0]
    late = 0
    for place in range(len(der)):
        damaged = bytearray(der)
        damaged[place] ^= 0xFF
        try:
            x509.load_der_x509_certificate(bytes(damaged))
        except (ValueError, UserWarning):
            pass
        else:
            late += 1
        try:
            shown = load_shown(bytes(damaged))
        except NotAllowed as error:
            assert error.reason == "certificate.unreadable"  # noqa: PT017 - most bytes matter, not all
            continue
        node_of(shown.public_key())
        with contextlib.suppress(NotAllowed):
            check_time(shown, NOW)
    assert late > 100


def test_an_extension_that_comes_twice_is_damage() -> None:
    der = MEMBER[0].public_bytes(serialization.Encoding.DER)
    twice = der.replace(b"\x06\x03\x55\x1d\x0f", b"\x06\x03\x55\x1d\x0e")  # key usage, now a second key identifier
    assert twice != der
    with pytest.raises(NotAllowed) as caught:
        load_shown(twice)
    assert caught.value.reason == "certificate.unreadable"
