"""What a node needs to trust others and be trusted, put together from its folder and its settings."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from decaf_node.daemon.clock import require_clock
from decaf_node.daemon.identity import Identity, load_identity
from decaf_node.daemon.let_in import LetIn
from decaf_node.daemon.papers import load_papers, outside_papers
from decaf_node.daemon.revocations import Revocations
from decaf_node.daemon.security import MutualTls, Plaintext
from decaf_node.daemon.signing import Signing
from decaf_node.settings import SecuritySection


@dataclass(frozen=True)
class OwnMesh:
    """The parts of a node under the mesh's own authority. folder: of its identity, where all of it is kept."""

    folder: Path
    identity: Identity
    tls: MutualTls
    revocations: Revocations
    signing: Signing
    let_in: LetIn
    lifetime: float

    @property
    def node(self) -> str:
        """The node ID."""
        return self.identity.node

    def reload(self) -> None:
        """Show what lies in the folder now. Raises what ``load_papers`` raises; then what was shown before stays."""
        self.tls.renew(load_papers(self.folder, self.identity, time.time()))


@dataclass(frozen=True)
class Outside:
    """An outside authority signs the certificates."""

    section: SecuritySection
    tls: MutualTls

    @property
    def node(self) -> str:
        """The node ID."""
        return self.tls.papers.node

    def reload(self) -> None:
        """Show what lies in the files now. Raises what ``outside_papers`` raises; then what was shown before stays."""
        self.tls.renew(outside_papers(self.section, time.time()))


@dataclass(frozen=True)
class Open:
    """Plaintext: there is nothing to trust by."""

    node: str
    tls: Plaintext

    def reload(self) -> None:
        """Nothing can change."""


Trust = OwnMesh | Outside | Open


def load_trust(folder: Path, section: SecuritySection, plaintext: bool) -> Trust:
    """Return the trust of the node with this identity folder; the identity itself is made where there is none.

    Raises TryAgain ``clock.not-set``, and what ``load_identity``, ``load_papers``, ``outside_papers`` and
    ``Revocations`` raise.
    """
    if plaintext:
        return Open(load_identity(folder).node, Plaintext())
    now = time.time()
    require_clock(now)
    if section.ca is not None:
        return Outside(section, MutualTls(outside_papers(section, now), None))
    identity = load_identity(folder)
    papers = load_papers(folder, identity, now)
    revocations = Revocations(folder, papers.authorities[0])
    let_in = LetIn(folder)
    tls = MutualTls(papers, revocations, let_in.note)
    signing = Signing(lambda: tls.papers.issuer, folder, section.certificate_lifetime)
    return OwnMesh(folder, identity, tls, revocations, signing, let_in, section.certificate_lifetime)
