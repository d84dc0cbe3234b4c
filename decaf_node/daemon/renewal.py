"""A new certificate before the old one expires: signed by this node itself where it may, else by a peer that may."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable

import grpc
from cryptography import x509

from decaf_node.daemon.certificates import check_chain, inviters_of, read_chain
from decaf_node.daemon.channels import Way
from decaf_node.daemon.node_id import node_of
from decaf_node.daemon.papers import keep_inviter, keep_papers
from decaf_node.daemon.problems import Problem, Problems, problem_of
from decaf_node.daemon.trust import OwnMesh
from decaf_node.errors import BadData, DecafError

DUE = 1 / 3  # of its life is left: renew
SIGNED = 1 / 2  # and no earlier than this is it signed for a peer: its clock, or its lifetime, may be another
PRESSING = 1 / 10  # and nobody has renewed it: say so
ASK_SECONDS = 5.0
ASK_AGAIN = 1 / 100  # of a certificate's life, before a peer that may not sign is asked again
ASKED_AT_MOST = 1024

log = logging.getLogger(__name__)


def part_left(certificate: x509.Certificate, lifetime: float, now: float) -> float:
    """Return which part of a certificate's life is left, of ``lifetime`` at most."""
    end = certificate.not_valid_after_utc.timestamp()
    return (end - now) / min(lifetime, end - certificate.not_valid_before_utc.timestamp())


def near_expiry(certificate: x509.Certificate, why: str, remedy: str) -> Problem:
    """Return what is said of a certificate that ends soon."""
    sentence = f"This node's certificate expires on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and {why}."
    return Problem("certificate.near-expiry", sentence, remedy, critical=True)


class Renewal:
    """Watches this node's certificate. clock: seconds since 1970."""

    def __init__(self, own: OwnMesh, problems: Problems, clock: Callable[[], float] = time.time) -> None:
        self._own = own
        self._problems = problems
        self._clock = clock
        self._asked: OrderedDict[str, float] = OrderedDict()

    @property
    def lifetime(self) -> float:
        """How long a certificate is valid."""
        return self._own.lifetime

    @property
    def left(self) -> float:
        """Which part of the certificate's life is left."""
        return part_left(self._own.tls.papers.chain[0], self._own.lifetime, self._clock())

    async def look(self) -> None:
        """Sign anew if it is time and this node may; say so where time runs out."""
        if self.left < DUE and self._own.signing.can:
            try:
                shown = self._own.tls.papers.chain[0]
                public = self._own.identity.key.public_key()
                await self._take(self._own.signing.certificate(public, inviters_of(shown)), b"")
            except DecafError as error:
                failed = problem_of(error, "This node's certificate cannot be renewed: ", critical=True)
                self._problems.set("certificate", failed)
        elif self.left < PRESSING:
            why = "no member that could renew it has been reached"
            remedy = "Start the founder or an inviter."
            self._problems.set("certificate", near_expiry(self._own.tls.papers.chain[0], why, remedy))

    async def met(self, way: Way, waits: bool) -> None:
        """Ask a peer for a new certificate if it is time, or if an inviter's ``waits`` there."""
        now = self._clock()
        recently = now - self._asked.get(way.node, float("-inf")) < ASK_AGAIN * self._own.lifetime
        if not waits and (recently or self.left >= DUE or self._own.signing.can):
            return
        self._asked[way.node] = now
        while len(self._asked) > ASKED_AT_MOST:
            self._asked.popitem(last=False)
        try:
            await self._take(*await way.renew(ASK_SECONDS))
        except grpc.aio.AioRpcError as error:
            log.debug("%s does not renew: %s", way.node, error.details())
        except DecafError as error:
            log.warning("A new certificate was offered that is no good: %s", error.message)

    async def _take(self, pem: bytes, inviter: bytes) -> None:
        """Keep and show a new certificate. Raises BadData or NotAllowed if it is not one for this node."""
        authority, now = self._own.tls.papers.authorities, self._clock()
        chain = read_chain(pem, "The answer")
        check_chain(chain, authority[0], now)
        signer = read_chain(inviter, "The answer") if inviter else ()
        if any(node_of(shown.public_key()) != self._own.identity.node for shown in (chain[0], *signer[:1])):
            raise BadData("certificate.other-key", "it is for another node's key.")
        await asyncio.to_thread(keep_papers, self._own.folder, chain, authority)
        if signer:
            await asyncio.to_thread(keep_inviter, self._own.folder, signer)
            log.info("This node may invite others now: decaf-node invite.")
        self._own.reload()
        self._problems.clear("certificate")
        log.info("The certificate is renewed until %s UTC.", f"{chain[0].not_valid_after_utc:%Y-%m-%d %H:%M}")
