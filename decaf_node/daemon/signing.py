"""Signing for others: members' certificates, and who may let members in too."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from decaf_node.daemon.certificates import AUTHORITY_SECONDS, Issuer, issue_inviter, issue_member, pem_of
from decaf_node.daemon.json_file import read_json, write_json
from decaf_node.daemon.node_id import node_of
from decaf_node.errors import NotAllowed

FILE = "inviters.json"
INVITERS_AT_MOST = 8  # that a certificate rests on, beside who has signed it


class Signing:
    """Signs, where this node may. issuer: returns with what, or None; folder: keeps whom to make an inviter."""

    def __init__(
        self,
        issuer: Callable[[], Issuer | None],
        folder: Path,
        lifetime: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._file = folder / FILE
        self._lifetime = lifetime
        self._clock = clock
        self._granted: set[str] = read_json(self._file, set, set())

    @property
    def can(self) -> bool:
        """This node may let others in."""
        return self._issuer() is not None

    def issuer(self) -> Issuer:
        """Return with what to sign. Raises NotAllowed ``security.no-inviter``."""
        issuer = self._issuer()
        if issuer is None:
            raise NotAllowed(
                "security.no-inviter",
                "This node may not let others in; run this at the founder or an inviter, or have the founder run "
                "`decaf-node approve --as-inviter` with this node's ID.",
            )
        return issuer

    def certificate(self, public: ec.EllipticCurvePublicKey, rests_on: Sequence[str] = ()) -> bytes:
        """Return a member's certificate with its chain, PEM; see ``issue_member``.

        What the authority signs rests on nobody else. Raises NotAllowed ``security.no-inviter``, or
        ``certificate.rests-on-too-many``.
        """
        issuer = self.issuer()
        others = [inviter for inviter in rests_on if issuer.below and inviter != node_of(issuer.key.public_key())]
        if len(others) > INVITERS_AT_MOST:
            raise NotAllowed(
                "certificate.rests-on-too-many", "The certificate rests on too many inviters; let the founder renew it."
            )
        return pem_of(issue_member(issuer, public, self._clock(), self._lifetime, others))

    def grant(self, node: str) -> None:
        """Let the node have an inviter's certificate. Raises NotAllowed ``approve.not-founder``."""
        if self.issuer().below:
            raise NotAllowed("approve.not-founder", "Only the founder, who has the mesh's key, can make inviters.")
        self._keep(self._granted | {node})

    def is_granted(self, node: str) -> bool:
        """Tell whether an inviter's certificate waits for the node."""
        return node in self._granted

    def inviter(self, public: ec.EllipticCurvePublicKey) -> bytes:
        """Return the inviter's certificate that waits for the holder of this key, PEM; empty if none does."""
        node = node_of(public)
        if node not in self._granted:
            return b""
        certificate = issue_inviter(self.issuer(), public, self._clock(), AUTHORITY_SECONDS)
        self._keep(self._granted - {node})
        return pem_of((certificate,))

    def _keep(self, granted: set[str]) -> None:
        write_json(self._file, sorted(granted))
        self._granted = granted


def key_in(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """Return the key of a member's certificate. Raises NotAllowed ``certificate.other-key-kind``."""
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise NotAllowed("certificate.other-key-kind", "Only certificates for ECDSA P-256 keys are signed here.")
    return public
