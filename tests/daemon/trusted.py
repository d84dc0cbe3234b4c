"""Certificates for tests: a mesh's authority, and state folders that it makes members of the mesh."""

from __future__ import annotations

import time
from pathlib import Path

from decaf_node.daemon.certificates import found_authority, issue_member
from decaf_node.daemon.identity import load_identity, new_identity
from decaf_node.daemon.papers import AUTHORITY_KEY, Papers, keep_papers, key_pem

LIFETIME = 86400.0


class Authority:
    """The authority of one mesh."""

    def __init__(self, mesh: str = "lab") -> None:
        self.issuer = found_authority(mesh, time.time())

    def papers(self, lifetime: float = LIFETIME, now: float | None = None) -> Papers:
        """Return papers of a member with a key of its own, kept nowhere."""
        identity = new_identity()
        chain = issue_member(self.issuer, identity.key.public_key(), time.time() if now is None else now, lifetime)
        return Papers(identity.node, identity.private_key_pem, chain, (self.issuer.certificate,))

    def admit(self, state: Path, lifetime: float = LIFETIME, now: float | None = None) -> str:
        """Give the node with this state folder a certificate; return its ID."""
        identity = load_identity(state / "identity")
        chain = issue_member(self.issuer, identity.key.public_key(), time.time() if now is None else now, lifetime)
        keep_papers(state / "identity", chain, (self.issuer.certificate,))
        return identity.node

    def found(self, state: Path) -> str:
        """Make the node with this state folder the founder; return its ID."""
        node = self.admit(state)
        key = state / "identity" / AUTHORITY_KEY
        key.write_bytes(key_pem(self.issuer.key))
        key.chmod(0o600)
        return node
