"""Who comes into the mesh and who is put out of it, as the operators of this node want it."""

from __future__ import annotations

import asyncio
import contextlib
import time

from decaf_node.daemon.certificates import fingerprint
from decaf_node.daemon.dial import Dialler
from decaf_node.daemon.enrolment import Enrolment
from decaf_node.daemon.node_id import FULL
from decaf_node.daemon.trust import OwnMesh
from decaf_node.daemon.waiting_list import Applicant
from decaf_node.errors import BadData, NotAllowed, TryAgain

TELL_AT_MOST = 64  # members that are told of a revocation at once; they tell the others
TELL_SECONDS = 2.0
USES_AT_MOST = 1000


class Gate:
    """What the control socket offers. enrolment and own: None where the mesh has no authority of its own."""

    def __init__(self, own: OwnMesh | None, enrolment: Enrolment | None, dialler: Dialler) -> None:
        self._own = own
        self._enrolment = enrolment
        self._dialler = dialler

    async def invite(self, ttl: float, uses: int) -> str:
        """Return the line of a new invitation; see ``Enrolment.invite``. Raises BadData ``invite.bad-limits`` too."""
        if not (ttl > 0 and 1 <= uses <= USES_AT_MOST):
            raise BadData("invite.bad-limits", f"An invitation is for some time, and for 1 to {USES_AT_MOST} devices.")
        return await self._door().invite(ttl, uses)

    async def waiting(self, seconds: float) -> tuple[list[Applicant], str]:
        """Let devices ask for so long; return who waits, and the fingerprint of the mesh, hex."""
        waiting = await self._door().wait_for_applicants(seconds)
        return waiting, fingerprint(self._mesh().tls.papers.authorities[0]).hex()

    async def approve(self, node: str, as_inviter: bool) -> bool:
        """See ``Enrolment.approve``. Raises BadData ``node.mistyped`` too."""
        return await self._door().approve(_node(node), as_inviter)

    async def revoke(self, node: str) -> int:
        """Put a member out; return how many members know of it by now.

        Raises BadData ``node.mistyped``, NotAllowed ``revoke.not-founder`` or ``revoke.itself``.
        """
        own, node = self._mesh(), _node(node)
        issuer = own.signing.issuer()
        if node == own.node:
            raise NotAllowed("revoke.itself", "The founder cannot be revoked: it holds the key of the mesh.")
        own.revocations.revoke(issuer, node, own.let_in.by(node), time.time())
        await own.writer.written()
        return await self._tell()

    async def _tell(self) -> int:
        """Say hello to those met last, so that they know at once; return how many have answered."""
        told = 0

        async def tell(peer: str) -> None:
            nonlocal told
            with contextlib.suppress(TryAgain):
                await self._dialler.hello(peer)
                told += 1

        tasks = [asyncio.create_task(tell(peer)) for peer in self._dialler.met_last(TELL_AT_MOST)]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=TELL_SECONDS)
            for task in late:
                task.cancel()
        return told

    def _door(self) -> Enrolment:
        self._mesh()
        assert self._enrolment is not None
        return self._enrolment

    def _mesh(self) -> OwnMesh:
        if self._own is None:
            raise NotAllowed(
                "security.no-authority",
                "This node's certificates come from an outside authority, or it runs in plaintext: nobody is let in or "
                "put out here.",
            )
        return self._own


def _node(node: str) -> str:
    if FULL.fullmatch(node) is None:
        raise BadData("node.mistyped", "That is no node ID.")
    return node
