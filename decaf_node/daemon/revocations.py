"""Who has been put out of the mesh: one numbered list, signed by the authority, that members pass on.

Whoever is revoked never comes back under its key. A revoked inviter's signature counts only for those that are named
as let in before, so that it can neither let in more nor date a new certificate back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from decaf_node.daemon.certificates import Issuer, fingerprint
from decaf_node.daemon.durable import disk_errors
from decaf_node.daemon.trust_wire import Body, Revoked, Signed, read_body, read_signed, write_body, write_signed
from decaf_node.daemon.writer import write_now
from decaf_node.errors import BadData, NotAllowed

FILE = "revocations"
CONTEXT = b"decaf-node revocations"


@dataclass(frozen=True)
class Known:
    """The newest list that is known, as it came and as it reads."""

    signed: Signed | None = None
    number: int = 0
    revoked: dict[str, Revoked] = field(default_factory=dict)


class Revocations:
    """Keeps the list of one mesh in ``folder``, by ``write``. changed: called whenever there is a newer one."""

    def __init__(
        self, folder: Path, authority: x509.Certificate, write: Callable[[Path, bytes], None] = write_now
    ) -> None:
        """Raises BadData ``revocations.damaged-file`` if what is kept there is not whole."""
        self._file = folder / FILE
        self._authority = authority
        self._write = write
        self.changed: Callable[[], None] = lambda: None
        self._known = Known()
        with disk_errors(folder):
            kept = self._file.read_bytes() if self._file.exists() else b""
        try:
            self._known = self._verified(read_signed(kept)) if kept else Known()
        except BadData as error:
            raise BadData(
                "revocations.damaged-file", f"{self._file}: {error.message} Remove it; members tell it again."
            ) from None

    @property
    def number(self) -> int:
        """The number of the list; 0 while there is none."""
        return self._known.number

    @property
    def revoked(self) -> tuple[str, ...]:
        """The node IDs in the list."""
        return tuple(self._known.revoked)

    @property
    def signed(self) -> Signed | None:
        """What is passed on."""
        return self._known.signed

    def refusal(self, node: str, *inviters: str) -> str:
        """Return why a member whose certificate rests on these inviters is refused; empty if it is not."""
        if node in self._known.revoked:
            return "it was revoked"
        for inviter in inviters:
            entry = self._known.revoked.get(inviter)
            if entry is not None and node not in entry.kept:
                return "who has let it in was revoked, and it was not known as a member then"
        return ""

    def learn(self, signed: Signed) -> bool:
        """Take a list from a peer; say whether it is newer than ours. Raises BadData ``revocations.damaged``."""
        known = self._verified(signed)
        if known.number <= self.number:
            return False
        self._keep(known)
        return True

    def revoke(self, issuer: Issuer, node: str, kept: frozenset[str], now: float) -> None:
        """Put ``node`` out. kept: whom it had let in. Raises NotAllowed ``revoke.not-founder``."""
        if issuer.certificate != self._authority:
            raise NotAllowed(
                "revoke.not-founder", "Only the device that holds the key of the mesh can revoke a member."
            )
        revoked = {**self._known.revoked, node: Revoked(node, int(now), kept)}
        body = write_body(Body(fingerprint(self._authority), self.number + 1, tuple(revoked.values())))
        signature = issuer.key.sign(CONTEXT + body, ec.ECDSA(hashes.SHA256()))
        self._keep(self._verified(Signed(body, signature)))

    def check(self, signed: Signed) -> None:
        """Raise BadData ``revocations.damaged`` unless the list is of this mesh."""
        self._verified(signed)

    def _verified(self, signed: Signed) -> Known:
        public = self._authority.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey), "an outside authority has lists of its own"
        try:
            public.verify(signed.signature, CONTEXT + signed.body, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise BadData("revocations.damaged", "A list of revocations is not signed by this mesh.") from None
        body = read_body(signed.body)
        if body.authority != fingerprint(self._authority):
            raise BadData("revocations.damaged", "A list of revocations is of another mesh.")
        return Known(signed, body.number, {entry.node: entry for entry in body.revoked})

    def _keep(self, known: Known) -> None:
        self._known = known
        assert known.signed is not None
        self._write(self._file, write_signed(known.signed))
        self.changed()
