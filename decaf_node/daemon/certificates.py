"""The certificates of a mesh: its authority, the members that it signs, and those that may let others in.

Everything is X.509 with ECDSA P-256. A member's certificate names its node ID, which anyone can work out from the key
in it. An inviter's certificate is for the same key, is signed by the authority, and can sign members but no further
inviters (path length 0). What comes from others is read and checked here, before any use.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from decaf_node.daemon.node_id import FULL, node_of
from decaf_node.errors import BadData, NotAllowed

AUTHORITY, INVITER, MEMBER = "decaf-node mesh", "decaf-node inviter", "decaf-node"
AUTHORITY_SECONDS = 20 * 365 * 86400.0
RESTS_ON = ".inviter.decaf-node"
EARLIER = timedelta(days=1)  # certificates are valid from then: clocks of home devices differ
CHAIN_LIMIT = 3  # a member, an inviter, and the authority, which is not needed
PEM_LIMIT_BYTES = 64 * 1024
REQUEST_LIMIT_BYTES = 4 * 1024
BAD_INPUT = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UserWarning,
)

Key = ec.EllipticCurvePrivateKey
Chain = tuple[x509.Certificate, ...]


@dataclass(frozen=True)
class Issuer:
    """Who can sign members. below: its certificate where it is not the authority itself, for the members' chains."""

    certificate: x509.Certificate
    key: Key = field(repr=False)
    below: Chain = ()


def found_authority(mesh: str, now: float) -> Issuer:
    """Make the certificate authority of a new mesh."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(AUTHORITY, mesh)
    builder = _builder(subject, subject, key.public_key(), _window(now, AUTHORITY_SECONDS))
    builder = _signing(builder, 1).add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    return Issuer(builder.sign(key, hashes.SHA256()), key)


def issue_member(
    issuer: Issuer, public: ec.EllipticCurvePublicKey, now: float, seconds: float, rests_on: Sequence[str] = ()
) -> Chain:
    """Return a member's certificate and what links it to the authority. It does not outlive its issuer's.

    rests_on: the inviters, beside the issuer, by whom the member came in; they stand in it as further names
    """
    node = node_of(public)
    builder = _below(issuer, _name(MEMBER, node), public, now, seconds)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(digital_signature=True), critical=True)
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(both, critical=False)
    names = [server_name(node), *(f"{inviter.lower()}{RESTS_ON}" for inviter in rests_on)]
    builder = builder.add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=False)
    return builder.sign(issuer.key, hashes.SHA256()), *issuer.below


def issue_inviter(authority: Issuer, public: ec.EllipticCurvePublicKey, now: float, seconds: float) -> x509.Certificate:
    """Return a certificate with which the holder of this key can let members in."""
    builder = _below(authority, _name(INVITER, node_of(public)), public, now, seconds)
    return _signing(builder, 0).sign(authority.key, hashes.SHA256())


def request_of(key: Key) -> bytes:
    """Return a signing request (DER), which shows that its sender has the key. The names in it count for nothing."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(MEMBER, node_of(key.public_key())))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def read_request(der: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of a signing request. Raises BadData ``certificate.bad-request``."""
    try:
        request = x509.load_der_x509_csr(der) if len(der) <= REQUEST_LIMIT_BYTES else None
        public = request.public_key() if request is not None and request.is_signature_valid else None
    except (*BAD_INPUT, InvalidSignature):
        public = None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise BadData("certificate.bad-request", "The signing request is damaged, or not for an ECDSA P-256 key.")
    return public


def read_chain(pem: bytes, source: str) -> Chain:
    """Return the certificates in ``pem``. Raises BadData ``certificate.damaged``; ``source`` says where it is from."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what will be an error soon, and names that nobody has
            chain = x509.load_pem_x509_certificates(pem) if len(pem) <= PEM_LIMIT_BYTES else []
            for certificate in chain:
                _read_all(certificate)
    except BAD_INPUT:
        chain = []
    if not chain:
        raise BadData("certificate.damaged", f"{source} holds no certificate that can be read; get it anew.")
    return tuple(chain)


def load_shown(data: bytes) -> x509.Certificate:
    """Return a certificate that was shown in TLS, PEM or DER. Raises NotAllowed ``certificate.unreadable``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load = x509.load_pem_x509_certificate if data.startswith(b"-----") else x509.load_der_x509_certificate
            return _read_all(load(data))
    except BAD_INPUT:
        raise NotAllowed("certificate.unreadable", "The certificate that is shown cannot be read.") from None


def pem_of(chain: Sequence[x509.Certificate]) -> bytes:
    """Return the certificates as text, in order."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain)


def fingerprint(certificate: x509.Certificate) -> bytes:
    """Return the sha256 of the certificate."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()


def server_name(node: str) -> str:
    """Return the name in a member's certificate."""
    return f"{node.lower()}.decaf-node"


def inviter_of(certificate: x509.Certificate) -> str:
    """Return the node ID of the inviter that has signed a member's certificate; empty if it was the authority."""
    organisation = certificate.issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    common = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in organisation] != [INVITER] or len(common) != 1:
        return ""
    node = str(common[0].value)
    return node if FULL.fullmatch(node) else ""


def inviters_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return all inviters that a member's certificate rests on: who has signed it, and by whom the member came in.

    Empty if the authority has signed it: it knows whom it has revoked.
    """
    signer = inviter_of(certificate)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    texts = (
        name.removesuffix(RESTS_ON).upper() for name in names.get_values_for_type(x509.DNSName) if RESTS_ON in name
    )
    others = (text for text in texts if FULL.fullmatch(text))
    return tuple(dict.fromkeys((signer, *others))) if signer else ()


def mesh_of(certificate: x509.Certificate) -> str:
    """Return the name of the mesh whose authority, as it says, has signed it; empty if it was somebody else."""
    organisation = certificate.issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    common = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if [name.value for name in organisation] == [AUTHORITY] and len(common) == 1 else ""


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether ``issuer`` has signed it; its dates are not looked at."""
    return _signed(certificate, issuer)


def check_chain(chain: Chain, authority: x509.Certificate, now: float) -> None:
    """Raise NotAllowed unless ``chain`` is a member's certificate, signed by the authority or by an inviter of it.

    Reasons: ``certificate.other-mesh``, ``certificate.expired``, ``certificate.not-yet-valid``.
    """
    links = [*(link for link in chain if link != authority), authority]
    sound = 2 <= len(links) <= CHAIN_LIMIT and not _path_length(links[0])
    sound = sound and all((_path_length(link) or 0) >= above for above, link in enumerate(links[1:], 1))
    if not sound or not all(_signed(below, above) for below, above in itertools.pairwise(links)):
        raise NotAllowed("certificate.other-mesh", "The certificate was not signed by the authority of this mesh.")
    for link in links:
        check_time(link, now)


def check_time(certificate: x509.Certificate, now: float) -> None:
    """Raise NotAllowed ``certificate.expired`` or ``certificate.not-yet-valid``."""
    when = datetime.fromtimestamp(now, timezone.utc)
    if when > certificate.not_valid_after_utc:
        raise NotAllowed(
            "certificate.expired",
            f"The certificate has expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC.",
        )
    if when < certificate.not_valid_before_utc:
        raise NotAllowed(
            "certificate.not-yet-valid",
            f"The certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d} on, and this clock says "
            f"{when:%Y-%m-%d %H:%M} UTC; set the clock.",
        )


def _read_all(certificate: x509.Certificate) -> x509.Certificate:
    """Read all of it that is used, now: the library reads fields when they are asked for, and raises then."""
    names = (certificate.subject, certificate.issuer)
    times = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    public = certificate.public_key()
    public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    _ = (*names, *times, certificate.serial_number, certificate.extensions, certificate.signature_algorithm_oid)
    return certificate


def _path_length(certificate: x509.Certificate) -> int | None:
    """Return one more than the path length of a certificate that may sign others; None of one that may not."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return None
    return (CHAIN_LIMIT if constraints.path_length is None else constraints.path_length + 1) if constraints.ca else None


def _signed(below: x509.Certificate, above: x509.Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
    except (*BAD_INPUT, InvalidSignature):
        return False
    return True


def _below(
    issuer: Issuer, subject: x509.Name, public: ec.EllipticCurvePublicKey, now: float, seconds: float
) -> x509.CertificateBuilder:
    begin, end = _window(now, seconds)
    end = min(end, issuer.certificate.not_valid_after_utc)
    builder = _builder(subject, issuer.certificate.subject, public, (begin, end))
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    return builder.add_extension(above, critical=False)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, window: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(window[0]).not_valid_after(window[1])


def _signing(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    return builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)


def _usage(digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(digital_signature, False, False, False, False, key_cert_sign, crl_sign, False, False)


def _window(now: float, seconds: float) -> tuple[datetime, datetime]:
    begin = datetime.fromtimestamp(now, timezone.utc)
    return begin - EARLIER, begin + timedelta(seconds=seconds)


def _name(organisation: str, common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )
