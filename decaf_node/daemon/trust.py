"""What a node needs to trust others and be trusted, put together from its folder and its settings."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from decaf_node.daemon.clock import require_clock
from decaf_node.daemon.crl import RevocationLists, load_lists
from decaf_node.daemon.identity import Identity, load_identity
from decaf_node.daemon.let_in import LetIn
from decaf_node.daemon.papers import Papers, load_papers, outside_papers
from decaf_node.daemon.revocations import Revocations
from decaf_node.daemon.security import MutualTls, Plaintext
from decaf_node.daemon.signing import Signing
from decaf_node.daemon.writer import Writer
from decaf_node.errors import NotAllowed
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
    writer: Writer

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
        """Show and heed what lies in the files now. Raises what ``load_outside`` does; then all stays as it was."""
        self.tls.renew(*load_outside(self.section, time.time()))

    def life_left(self, now: float) -> float:
        """Return which part of the life of this node's certificate is left."""
        shown = self.tls.papers.chain[0]
        begin, end = shown.not_valid_before_utc.timestamp(), shown.not_valid_after_utc.timestamp()
        return (end - now) / (end - begin)

    def staleness(self, now: float) -> str:
        """Return what is wrong with the age of the revocation lists; empty if nothing is."""
        if self.tls.lists is None or now <= self.tls.lists.until:
            return ""
        return f"The revocation list {self.section.crl} is stale: who was revoked of late is let in."


@dataclass(frozen=True)
class Open:
    """Plaintext: there is nothing to trust by."""

    node: str
    tls: Plaintext

    def reload(self) -> None:
        """Nothing can change."""


Trust = OwnMesh | Outside | Open


def load_outside(section: SecuritySection, now: float) -> tuple[Papers, RevocationLists | None]:
    """Return what an outside authority has signed, and its revocation lists if they are named.

    Raises what ``outside_papers`` and ``load_lists`` raise; NotAllowed ``security.revoked`` if this node itself is in
    the lists, or ``crl.other-authority`` if they say nothing of its certificate.
    """
    papers = outside_papers(section, now)
    if section.crl is None:
        return papers, None
    lists = load_lists(section.crl, (*papers.authorities, *papers.chain[1:]), now)
    own = papers.chain[0]
    if own.issuer.public_bytes() not in lists.revoked:
        raise NotAllowed("crl.other-authority", f"{section.crl} has no list of who has signed this node's certificate.")
    if lists.refusal(own):
        raise NotAllowed("security.revoked", f"This node's certificate is in {section.crl}; ask for another one.")
    return papers, lists


def load_trust(folder: Path, section: SecuritySection, plaintext: bool) -> Trust:
    """Return the trust of the node with this identity folder; the identity itself is made where there is none.

    Raises TryAgain ``clock.not-set``, and what ``load_identity``, ``load_papers``, ``load_outside`` and
    ``Revocations`` raise.
    """
    if plaintext:
        return Open(load_identity(folder).node, Plaintext())
    now = time.time()
    require_clock(now)
    if section.ca is not None:
        outside, lists = load_outside(section, now)
        return Outside(section, MutualTls(outside, None, lists=lists))
    identity = load_identity(folder)
    papers = load_papers(folder, identity, now)
    writer = Writer()
    revocations = Revocations(folder, papers.authorities[0], writer.write)
    let_in = LetIn(folder, writer.write)
    tls = MutualTls(papers, revocations, let_in.note)
    signing = Signing(lambda: tls.papers.issuer, folder, section.certificate_lifetime)
    return OwnMesh(folder, identity, tls, revocations, signing, let_in, section.certificate_lifetime, writer)
