"""Revocation lists of an outside authority: read, checked, heeded at both ends."""

from __future__ import annotations

import signal
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from decaf_node.daemon.crl import load_lists, read_lists
from decaf_node.daemon.security import MutualTls
from decaf_node.daemon.trust import Outside, load_outside
from decaf_node.errors import BadData, BadSettings, DecafError, NotAllowed
from decaf_node.settings import SecuritySection
from tests.daemon.company import Company
from tests.daemon.processes import mesh

DAY = 86400.0
COMPANY, OTHER = Company(), Company()


def reason(data: bytes, now: float | None = None) -> str:
    with pytest.raises(DecafError) as caught:
        read_lists(data, (COMPANY.certificate,), time.time() if now is None else now, "it")
    return caught.value.reason


def section(folder: Path, name: str, crl: bytes) -> SecuritySection:
    named = COMPANY.issue(folder, name)
    (folder / "crl.pem").write_bytes(crl)
    return SecuritySection(**named, crl=folder / "crl.pem")


def test_who_is_in_the_list_is_refused_and_others_are_not(tmp_path: Path) -> None:
    for name in ("a", "b"):
        COMPANY.issue(tmp_path / name, name)
    pem = COMPANY.revoking("b")
    der = x509.load_pem_x509_crl(pem).public_bytes(serialization.Encoding.DER)
    for data in (pem, der, COMPANY.revoking() + pem):
        lists = read_lists(data, (OTHER.certificate, COMPANY.certificate), time.time(), "it")
        assert lists.refusal(COMPANY.issued["a"]) == ""
        assert "was revoked" in lists.refusal(COMPANY.issued["b"])
        assert lists.until == pytest.approx(time.time() + DAY, abs=1000)


def test_a_certificate_of_whom_no_list_speaks_is_refused() -> None:
    lists = read_lists(COMPANY.revoking(), (COMPANY.certificate,), time.time(), "it")
    authority = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "else")])
    assert "no list" in lists.refusal(_renamed(authority))


def _renamed(issuer: x509.Name) -> x509.Certificate:
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder().subject_name(issuer).issuer_name(issuer).public_key(COMPANY.key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(COMPANY.key, hashes.SHA256())


def test_what_is_no_list_or_not_ours_or_not_fresh_is_refused() -> None:
    good = COMPANY.revoking()
    assert (
        reason(b"")
        == reason(b"nonsense")
        == reason(good[:-80])
        == reason(good + b"-----BEGIN X509 CRL-----")
        == "crl.damaged"
    )
    assert reason(OTHER.revoking()) == "crl.other-authority"
    assert reason(good + OTHER.revoking()) == "crl.other-authority"
    assert reason(COMPANY.revoking(days=1.0, age=2.0)) == "crl.stale"
    assert reason(good, time.time() + 2 * DAY) == "crl.stale"
    assert reason(good, time.time() - DAY) == "crl.not-yet-valid"


def test_a_list_of_changes_is_not_taken_for_a_whole_one() -> None:
    now = datetime.now(timezone.utc)
    builder = x509.CertificateRevocationListBuilder().issuer_name(COMPANY.certificate.subject)
    builder = builder.last_update(now - timedelta(days=1)).next_update(now + timedelta(days=1))
    builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
    delta = builder.sign(COMPANY.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    assert reason(delta) == "crl.damaged"


def test_a_wrong_byte_is_seen_or_changes_nothing() -> None:
    der = x509.load_pem_x509_crl(COMPANY.revoking()).public_bytes(serialization.Encoding.DER)
    right = read_lists(der, (COMPANY.certificate,), time.time(), "it")
    passed = 0
    for place in range(len(der)):
        damaged = bytearray(der)
        damaged[place] ^= 1
        try:
            read = read_lists(bytes(damaged), (COMPANY.certificate,), time.time(), "it")
        except (BadData, NotAllowed):
            continue
        passed += 1
        assert read == right
    assert passed < 4, "a few bytes of the encoding mean nothing"


def test_a_node_that_is_itself_revoked_does_not_start_and_a_list_of_another_does_not_do(tmp_path: Path) -> None:
    named = section(tmp_path / "a", "a", COMPANY.revoking())
    assert load_outside(named, time.time())[1] is not None
    (tmp_path / "a" / "crl.pem").write_bytes(COMPANY.revoking("a"))
    with pytest.raises(NotAllowed) as caught:
        load_outside(named, time.time())
    assert caught.value.reason == "security.revoked"
    with pytest.raises(BadSettings):
        load_lists(tmp_path / "none", (COMPANY.certificate,), time.time())


def test_a_list_that_has_become_stale_is_said(tmp_path: Path) -> None:
    named = section(tmp_path / "a", "a", COMPANY.revoking())
    papers, lists = load_outside(named, time.time())
    outside = Outside(named, MutualTls(papers, None, lists=lists))
    assert outside.staleness(time.time()) == ""
    assert "is stale" in outside.staleness(time.time() + 2 * DAY)


def test_how_much_of_an_outside_certificates_life_is_left(tmp_path: Path) -> None:
    papers, _ = load_outside(section(tmp_path / "a", "a", COMPANY.revoking()), time.time())
    outside = Outside(section(tmp_path / "a", "a", COMPANY.revoking()), MutualTls(papers, None))
    begin = papers.chain[0].not_valid_before_utc.timestamp()
    end = papers.chain[0].not_valid_after_utc.timestamp()
    assert outside.life_left(begin) == 1.0
    assert outside.life_left(begin + 0.95 * (end - begin)) == pytest.approx(0.05)


@pytest.mark.slow
def test_the_revoked_are_out_at_both_ends_after_a_sighup(tmp_path: Path) -> None:
    company = Company()
    sections = {name: company.issue(tmp_path / name, name) for name in ("a", "b")}
    for name, named in sections.items():
        (tmp_path / name / "crl.pem").write_bytes(company.revoking())
        named["crl"] = str(tmp_path / name / "crl.pem")
    with mesh() as make:
        a = make("a", authority=None, security=sections["a"]).start()
        b = make("b", a, authority=None, security=sections["b"]).start()
        b.until(lambda status: status.mixes > 1 and not status.problem)
        (tmp_path / "a" / "crl.pem").write_bytes(OTHER.revoking())
        a.signal(signal.SIGHUP)
        assert "not signed by an authority" in a.until(lambda status: status.problem != "").problem
        (tmp_path / "a" / "crl.pem").write_bytes(company.revoking("b"))
        a.signal(signal.SIGHUP)
        a.says("its certificate was revoked")
        a.until(lambda status: status.degree == 0)
        mixes = a.status().mixes
        rounds = a.status().round
        a.until(lambda status: status.round > rounds + 2)
        assert a.status().mixes <= mixes + 1
        b.end()
        (tmp_path / "b" / "crl.pem").write_bytes(company.revoking("b"))
        b.start()
        assert b.wait() == 77
        assert "[security.revoked]" in b.log()
