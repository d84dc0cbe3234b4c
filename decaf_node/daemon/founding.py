"""Found a mesh on this device, and invite the first other one before any daemon runs."""

from __future__ import annotations

import time
from pathlib import Path

from decaf_node.daemon.addresses import join
from decaf_node.daemon.certificates import fingerprint
from decaf_node.daemon.clock import require_clock
from decaf_node.daemon.durable import disk_errors, make_folder
from decaf_node.daemon.enrolment import reached_at
from decaf_node.daemon.identity import load_identity
from decaf_node.daemon.invitations import Invitations
from decaf_node.daemon.join_token import JoinToken, write_token
from decaf_node.daemon.papers import Papers, found_mesh, has_expired, is_member
from decaf_node.errors import NotAllowed
from decaf_node.settings import Settings

FIRST_TTL_SECONDS = 1800.0


def found(state: Path, settings: Settings) -> Papers:
    """Make this device the founder of the mesh that the settings name.

    Raises NotAllowed ``init.already-member``, TryAgain ``clock.not-set``, and what ``load_identity`` raises.
    """
    now = time.time()
    require_clock(now)
    folder = state / "identity"
    refuse_member(folder, "init.already-member")
    with disk_errors(state):
        make_folder(state)
    identity = load_identity(folder)
    return found_mesh(folder, identity, settings.mesh.name, now, settings.security.certificate_lifetime)


def refuse_member(folder: Path, reason: str) -> None:
    """Raise NotAllowed ``reason`` if the node with this identity folder belongs to a mesh.

    One whose certificate has expired may join again.
    """
    if is_member(folder) and not has_expired(folder, time.time()):
        raise NotAllowed(
            reason,
            f"This node belongs to a mesh already; to leave it for another one, start with a new state folder "
            f"(--state), or remove {folder}.",
        )


def first_invitation(state: Path, settings: Settings, papers: Papers) -> str | None:
    """Return an invitation for one device, which the daemon honours when it starts; None if the port is not known."""
    port = settings.listen.enrolment_port
    if not port:
        return None
    secret = Invitations(state / "identity", settings.limits.invitations).make(FIRST_TTL_SECONDS, 1)
    places = tuple(join(host, port) for host in reached_at(settings))
    return write_token(JoinToken(settings.mesh.name, places, fingerprint(papers.authorities[0]), secret))
