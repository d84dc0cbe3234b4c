"""Certificate revocation lists of an outside authority: whose certificates are no good any more, by serial number.

RFC 5280, section 5. A list counts for the certificates of its issuer; it must be signed by an authority that this node
believes, and be fresh. Where lists are used, a certificate whose issuer has none is refused: nobody could know.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from decaf_node.daemon.certificates import BAD_INPUT, Chain
from decaf_node.daemon.durable import disk_errors
from decaf_node.errors import BadData, BadSettings, NotAllowed

LIMIT_BYTES = 16 * 1024 * 1024
BEGIN = b"-----BEGIN X509 CRL-----"


@dataclass(frozen=True)
class RevocationLists:
    """The lists in one file. revoked: serial numbers by the issuer's name; until: when the first of them is stale."""

    revoked: dict[bytes, frozenset[int]]
    until: float

    def refusal(self, certificate: x509.Certificate) -> str:
        """Return why the certificate is refused; empty if it is not."""
        serials = self.revoked.get(certificate.issuer.public_bytes())
        if serials is None:
            return "security.crl has no list of the authority that has signed its certificate"
        return "its certificate was revoked" if certificate.serial_number in serials else ""


def load_lists(path: Path, signers: Chain, now: float) -> RevocationLists:
    """Return the lists in the file, PEM (one after the other) or DER. signers: the authorities, and those below them.

    Raises BadSettings ``crl.missing``, BadData ``crl.damaged``, NotAllowed ``crl.other-authority``, ``crl.stale`` or
    ``crl.not-yet-valid``.
    """
    if not path.is_file():
        raise BadSettings("crl.missing", f"security.crl names {path}, and there is no such file.")
    with disk_errors(path.parent), path.open("rb") as file:
        data = file.read(LIMIT_BYTES + 1)
    return read_lists(data, signers, now, str(path))


def read_lists(data: bytes, signers: Chain, now: float, source: str) -> RevocationLists:
    """Return the lists in ``data``; see ``load_lists``. ``source`` says where it is from."""
    revoked: dict[bytes, frozenset[int]] = {}
    until = float("inf")
    for crl in _parsed(data, source):
        _check_signer(crl, signers, source)
        until = min(until, _fresh_until(crl, now, source))
        try:
            serials = frozenset(entry.serial_number for entry in crl)
        except BAD_INPUT:
            raise _damaged(source, "it cannot be read to its end") from None
        issuer = crl.issuer.public_bytes()
        revoked[issuer] = revoked.get(issuer, frozenset()) | serials
    return RevocationLists(revoked, until)


def _parsed(data: bytes, source: str) -> list[x509.CertificateRevocationList]:
    if len(data) > LIMIT_BYTES:
        raise _damaged(source, f"it has more than {LIMIT_BYTES} bytes")
    try:
        if BEGIN not in data:
            lists = [x509.load_der_x509_crl(data)]
        else:
            lists = [x509.load_pem_x509_crl(BEGIN + block) for block in data.split(BEGIN)[1:]]
        critical = [extension.oid for crl in lists for extension in crl.extensions if extension.critical]
        _ = [crl.issuer.public_bytes() for crl in lists]
    except BAD_INPUT:
        raise _damaged(source, "it cannot be read") from None
    if critical:
        raise _damaged(source, "it is of a kind that is not understood here, as lists of changes are")
    return lists


def _check_signer(crl: x509.CertificateRevocationList, signers: Chain, source: str) -> None:
    named = [signer for signer in signers if signer.subject == crl.issuer]
    if not any(_signed(crl, signer) for signer in named):
        raise NotAllowed(
            "crl.other-authority", f"{source} is not signed by an authority in security.ca; get it from that one."
        )


def _signed(crl: x509.CertificateRevocationList, signer: x509.Certificate) -> bool:
    public: Any = signer.public_key()  # of a kind that signs nothing, it raises TypeError
    try:
        return bool(crl.is_signature_valid(public))
    except (*BAD_INPUT, InvalidSignature):
        return False


def _fresh_until(crl: x509.CertificateRevocationList, now: float, source: str) -> float:
    try:
        begin, end = crl.last_update_utc, crl.next_update_utc
    except BAD_INPUT:
        raise _damaged(source, "it cannot be read") from None
    if end is None:
        raise _damaged(source, "it does not say until when it holds")
    if end.timestamp() < now:
        raise NotAllowed("crl.stale", f"{source} held until {end:%Y-%m-%d %H:%M} UTC only; get the newest one.")
    if begin.timestamp() > now:
        when = datetime.fromtimestamp(now, timezone.utc)
        raise NotAllowed(
            "crl.not-yet-valid",
            f"{source} holds from {begin:%Y-%m-%d %H:%M} UTC on, and this clock says {when:%Y-%m-%d %H:%M}; set the "
            "clock.",
        )
    return end.timestamp()


def _damaged(source: str, problem: str) -> BadData:
    return BadData("crl.damaged", f"The revocation list {source} is of no use: {problem}; get it anew.")
