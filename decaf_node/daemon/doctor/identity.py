"""Who this node is and what it shows: its key, its certificate and their dates. Nothing is made where there is none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from decaf_node.daemon.certificates import Chain, read_chain
from decaf_node.daemon.doctor.finding import Finding, failure, warning, well
from decaf_node.daemon.identity import KEY, Identity, load_identity
from decaf_node.daemon.node_id import short
from decaf_node.daemon.papers import AUTHORITY, is_member, load_papers
from decaf_node.daemon.renewal import PRESSING, part_left
from decaf_node.daemon.revocations import Revocations
from decaf_node.daemon.security import MutualTls, Plaintext
from decaf_node.daemon.trust import load_outside
from decaf_node.errors import BadData, BadSettings, DecafError, NotAllowed
from decaf_node.settings import SecuritySection

LAYER, CERTIFICATE = "identity", "certificate"


@dataclass(frozen=True)
class Shown:
    """How this node speaks to others.

    node:        its ID; empty if it is not known
    security:    None if it has nothing to show
    authorities: whom it believes, also where its own certificate is no good
    """

    node: str = ""
    security: MutualTls | Plaintext | None = None
    authorities: Chain = ()


def look_at_identity(
    folder: Path, section: SecuritySection, now: float, claimed: str, runs: bool
) -> tuple[Shown, list[Finding]]:
    """Look at the identity folder, or at what an outside authority has signed.

    claimed: the node ID that the history of rounds was made with; empty if unknown
    runs:    a daemon runs; where it belongs to no mesh it was told to speak in plaintext
    """
    try:
        if section.ca is not None:
            papers, lists = load_outside(section, now)
            outside = MutualTls(papers, None, lists=lists)
            return Shown(papers.node, outside, papers.authorities), [_dates(outside, now)]
        if not os.path.lexists(folder / KEY):
            return Shown(), [failure(LAYER, "key", _no_member(folder))]
        identity = load_identity(folder)
    except DecafError as error:
        return Shown(), [failure(LAYER, "key", error)]
    node = identity.node
    if claimed not in ("", node):
        other = f"{folder} holds the key of {short(node)}, and the state folder belongs to the node {short(claimed)}."
        return Shown(node), [failure(LAYER, "key", BadSettings("state.other-identity", other))]
    key = well(LAYER, "key", f"node {short(node)}, readable by its owner alone")
    if section.insecure or (runs and not is_member(folder)):
        return Shown(node, Plaintext()), [key, _plaintext()]
    try:
        tls = _own_mesh(folder, identity, now)
    except DecafError as error:
        return Shown(node, None, _authorities(folder)), [key, failure(LAYER, CERTIFICATE, error)]
    return Shown(node, tls, tls.papers.authorities), [key, _dates(tls, now)]


def _own_mesh(folder: Path, identity: Identity, now: float) -> MutualTls:
    papers = load_papers(folder, identity, now)
    revocations = Revocations(folder, papers.authorities[0])
    if why := revocations.refusal(papers.node):
        raise NotAllowed("security.revoked", f"This node is no member any more: {why}.")
    return MutualTls(papers, revocations)


def _authorities(folder: Path) -> Chain:
    try:
        return read_chain((folder / AUTHORITY).read_bytes(), AUTHORITY)
    except (OSError, BadData):
        return ()  # that it is no good is said already


def _dates(tls: MutualTls, now: float) -> Finding:
    certificate = tls.papers.chain[0]
    end = certificate.not_valid_after_utc
    hours = (end.timestamp() - now) / 3600
    left = f"until {end:%Y-%m-%d %H:%M} UTC, {f'{hours / 24:.0f} days' if hours > 48 else f'{hours:.0f} hours'}"
    lifetime = (end - certificate.not_valid_before_utc).total_seconds()
    if part_left(certificate, lifetime, now) < PRESSING and not tls.papers.is_founder:
        soon = f"It is valid {left}, and no member has renewed it yet."
        return warning(LAYER, CERTIFICATE, "certificate.expires-soon", soon)
    return well(LAYER, CERTIFICATE, f"valid {left}" + (", and this is the founder" if tls.papers.is_founder else ""))


def _plaintext() -> Finding:
    return warning(
        LAYER, CERTIFICATE, "security.insecure", "This node speaks in plaintext: whoever reaches it can read and join."
    )


def _no_member(folder: Path) -> NotAllowed:
    return NotAllowed(
        "security.no-certificate",
        f"There is no identity in {folder}: this device belongs to no mesh yet, or its state folder is another one.",
    )
