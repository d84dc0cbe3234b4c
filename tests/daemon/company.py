"""An outside authority for tests."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


class Company:
    """An outside authority, with RSA keys and names of its own."""

    def __init__(self) -> None:
        self.issued: dict[str, x509.Certificate] = {}
        self.key = rsa.generate_private_key(65537, 2048)
        self.certificate = self._sign("Company CA", self.key.public_key(), True)

    def issue(self, folder: Path, name: str) -> dict[str, Any]:
        """Write key, certificate and authority; return the section of the settings."""
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "key.pem").write_bytes(pem)
        (folder / "key.pem").chmod(0o600)
        self.issued[name] = self._sign(name, key.public_key(), False)
        for file, certificate in (
            ("cert.pem", self.issued[name]),
            ("ca.pem", self.certificate),
        ):
            (folder / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return {
            name: str(folder / file)
            for name, file in (("ca", "ca.pem"), ("certificate", "cert.pem"), ("key", "key.pem"))
        }

    def _sign(self, name: str, public: Any, ca: bool) -> x509.Certificate:
        now = datetime.now(timezone.utc)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Company CA")])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
        builder = builder.not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
        if not ca:
            names = x509.SubjectAlternativeName([x509.DNSName(f"{name}.example")])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def revoking(self, *names: str, days: float = 1.0, age: float = 0.01) -> bytes:
        """Return a revocation list (PEM) of those certificates, made ``age`` days ago, that holds for ``days``."""
        made = datetime.now(timezone.utc) - timedelta(days=age)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(made).next_update(made + timedelta(days=days))
        for name in names:
            entry = x509.RevokedCertificateBuilder().serial_number(self.issued[name].serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(made).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
