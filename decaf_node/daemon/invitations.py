"""Open invitations: secrets, of which only hashes are kept, that expire and belong to whoever uses them first."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from decaf_node.daemon.join_token import SECRET_BYTES
from decaf_node.daemon.json_file import read_json, write_json
from decaf_node.errors import NotAllowed, TryAgain

FILE = "invitations.json"
REMEMBERED_SECONDS = 7 * 86400.0  # after it has expired, so that a person is told so
TTL_LIMIT = 30 * 86400.0


@dataclass(frozen=True)
class Invitation:
    """One invitation. digest: sha256 of the secret, hex; used: the nodes that have come by it."""

    digest: str
    expires: float
    uses: int
    used: tuple[str, ...] = ()


class Invitations:
    """Keeps the invitations of this node in ``folder``. limit: most that are open; clock: seconds since 1970."""

    def __init__(self, folder: Path, limit: int, clock: Callable[[], float] = time.time) -> None:
        self._file = folder / FILE
        self._limit = limit
        self._clock = clock
        self._all: tuple[Invitation, ...] = read_json(self._file, _read, ())

    def make(self, ttl: float, uses: int) -> bytes:
        """Return the secret of a new invitation. Raises TryAgain ``invite.too-many``."""
        now = self._clock()
        if len([each for each in self._all if each.expires > now]) >= self._limit:
            raise TryAgain("invite.too-many", "Too many invitations are open; wait until one has expired.")
        secret = secrets.token_bytes(SECRET_BYTES)
        kept = (each for each in self._all if each.expires + REMEMBERED_SECONDS > now)
        self._keep((*kept, Invitation(_digest(secret), now + min(ttl, TTL_LIMIT), uses)))
        return secret

    def check(self, secret: bytes, node: str) -> Invitation:
        """Return the invitation that ``node`` may use with the secret, or raise NotAllowed. Nothing is used up.

        Reasons: ``join.token-unknown``, ``join.token-expired``, ``join.token-used`` (the same node may again).
        """
        digest = _digest(secret)
        invitation = next((each for each in self._all if secrets.compare_digest(each.digest, digest)), None)
        if invitation is None:
            raise NotAllowed("join.token-unknown", "This node knows nothing of this invitation; ask for a new one.")
        if self._clock() >= invitation.expires:
            raise NotAllowed("join.token-expired", "The invitation has expired; ask for a new one: decaf-node invite.")
        if node not in invitation.used and len(invitation.used) >= invitation.uses:
            raise NotAllowed(
                "join.token-used",
                "The invitation was used up by another device; if that was not you, tell who sent it to you, and ask "
                "for a new one.",
            )
        return invitation

    def redeem(self, secret: bytes, node: str) -> None:
        """``node`` has shown the secret: let it in, or raise as ``check`` does."""
        invitation = self.check(secret, node)
        if node in invitation.used:
            return
        used = replace(invitation, used=(*invitation.used, node))
        self._keep(tuple(used if each is invitation else each for each in self._all))

    def open_until(self) -> float:
        """Return when the last of those that somebody may still use expires; 0 if there is none."""
        return max((each.expires for each in self._all if len(each.used) < each.uses), default=0.0)

    def _keep(self, invitations: tuple[Invitation, ...]) -> None:
        write_json(self._file, [asdict(each) for each in invitations])
        self._all = invitations


def _read(documents: list[dict[str, Any]]) -> tuple[Invitation, ...]:
    return tuple(Invitation(**{**each, "used": tuple(each["used"])}) for each in documents)


def _digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
