"""Trust kept up to date between nodes: revocations passed on, certificates renewed, cloned identities seen.

It is called with every hello, from either end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc

from decaf_node.daemon.certificates import inviters_of
from decaf_node.daemon.channels import Way
from decaf_node.daemon.clones import FORGET_SECONDS, Clone, Clones
from decaf_node.daemon.dial import HELLO_SECONDS, Answer
from decaf_node.daemon.host import Me
from decaf_node.daemon.node_id import node_of, short
from decaf_node.daemon.problems import Problem, Problems
from decaf_node.daemon.renewal import PRESSING, SIGNED, Renewal, near_expiry, part_left
from decaf_node.daemon.signing import key_in
from decaf_node.daemon.trust import Outside, OwnMesh, Trust
from decaf_node.daemon.trust_wire import Signed, signed_from_wire, signed_to_wire
from decaf_node.daemon.wire import Introduction
from decaf_node.errors import NotAllowed
from decaf_node.v1 import mesh_pb2

LOOK_EVERY_SECONDS = 60.0
SAID_EVERY_SECONDS = 300.0  # at most, of clones: they come and go with every hello


class Upkeep:
    """Keeps the trust of one node up to date.

    me:      the number in its introductions follows the revocations
    put_out: called with each member that is revoked, whenever there are new revocations
    clock:   monotonic seconds
    """

    def __init__(
        self,
        me: Me,
        trust: Trust,
        problems: Problems,
        put_out: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._me = me
        self._own = trust if isinstance(trust, OwnMesh) else None
        self._outside = trust if isinstance(trust, Outside) else None
        self._problems = problems
        self._renewal = Renewal(self._own, problems) if self._own is not None else None
        self._clones = Clones(clock)
        self._clock = clock
        self._cloned: dict[str, float] = {}  # peers, and when one of their two devices was last heard
        self._tellers: dict[str, float] = {}  # who has told that we have a clone, and when; ourselves if we have met it
        self._put_out = put_out
        if self._own is not None:
            me.revocations = self._own.revocations.number
            self._own.revocations.changed = self._revoked

    async def run(self) -> None:
        """Look after this node's own certificate, or an outside authority's lists, until cancelled."""
        while True:
            pause = LOOK_EVERY_SECONDS
            if self._outside is not None:
                self._look_at_lists(self._outside)
                self._look_at_certificate(self._outside)
            if self._renewal is not None:
                await self._renewal.look()
                pause = min(pause, self._renewal.lifetime / 20)
            self.forget()
            await asyncio.sleep(pause)

    def _look_at_lists(self, outside: Outside) -> None:
        if stale := outside.staleness(time.time()):
            self._problems.set("crl", Problem("crl.stale", stale, "Get the newest one, and send the daemon SIGHUP."))
        else:
            self._problems.clear("crl")

    def _look_at_certificate(self, outside: Outside) -> None:
        """Say when it ends soon; reading another one clears that."""
        if outside.life_left(time.time()) < PRESSING:
            shown = outside.tls.papers.chain[0]
            remedy = "Have the authority sign a new one, and send the daemon SIGHUP."
            self._problems.set("certificate", near_expiry(shown, "an outside authority's is renewed by hand", remedy))

    def heard(self, who: Introduction, source: str) -> Clone | None:
        """A peer has introduced itself; return where another device with its identity is, if there is one."""
        clone = self._clones.heard(who.node, who.instance, source)
        if clone is None:
            self._forget_clone(who.node)
            return None
        self._cloned[who.node] = self._clock()
        here, there = sorted((_host(source), _host(clone.source)))
        self._problems.set(
            f"clone {who.node}",
            Problem(
                "identity.cloned",
                f"Two devices have the identity of {who.name or 'a node'} ({short(who.node)}), as after copying a "
                f"disk, at {here} and {there}; only one of them is mixed.",
                "Stop one, remove its state folder, and let it join anew.",
            ),
            SAID_EVERY_SECONDS,
        )
        return clone

    def _forget_clone(self, node: str) -> None:
        self._cloned.pop(node, None)
        self._problems.clear(f"clone {node}")

    def forget(self) -> None:
        """Those of which neither device was heard for long are gone, and so may be our own clone."""
        since = self._clock() - FORGET_SECONDS
        for node in [node for node, heard in self._cloned.items() if heard <= since]:
            self._forget_clone(node)
        self._forget_tellers()

    def may_invite(self, node: str) -> bool:
        """Tell whether an inviter's certificate waits here for the node."""
        return self._own is not None and self._own.signing.is_granted(node)

    def exchange(self, theirs: Signed | None) -> Signed | None:
        """Take a peer's revocations; return ours. Raises BadData ``revocations.damaged``."""
        if self._own is None:
            return None
        if theirs is not None:
            self._own.revocations.learn(theirs)
        return self._own.revocations.signed

    async def renewed(self, context: grpc.aio.ServicerContext[Any, Any]) -> tuple[bytes, bytes]:
        """Return a new certificate for the caller, and an inviter's if one waits for it, both PEM.

        It rests on the same inviters as the one that is shown. Raises NotAllowed ``security.no-inviter``,
        ``certificate.not-due``, and what ``Signing.certificate`` raises.
        """
        if self._own is None:
            raise NotAllowed("security.no-inviter", "This node signs no certificates.")
        shown = self._own.tls.shown(context)
        public = key_in(shown)
        granted = self._own.signing.is_granted(node_of(public))
        if not granted and part_left(shown, self._own.lifetime, time.time()) > SIGNED:
            raise NotAllowed("certificate.not-due", "The certificate need not be renewed yet.")
        certificate = self._own.signing.certificate(public, inviters_of(shown))
        return certificate, await asyncio.to_thread(self._own.signing.inviter, public)

    async def met(self, address: str, way: Way, answer: Answer) -> None:
        """A peer has answered our hello at ``address``; see ``dial.Met``.

        Raises NotAllowed ``identity.cloned`` if another device with its identity is to be spoken to instead.
        """
        if answer.who.node == self._me.node:
            self._met_ourselves(answer.who, address)
            return
        self._problems.clear("membership")
        clone = self.heard(answer.who, address)
        self._told_of_clone(answer)
        if clone is not None and not clone.first:
            raise NotAllowed("identity.cloned", "another device has its identity, and that one is spoken to")
        if self._own is None or self._renewal is None:
            return
        if answer.who.revocations != self._me.revocations:
            await self._compare(way)
        await self._renewal.met(way, answer.renew)

    def turned_away(self, address: str, why: str) -> None:
        """A peer has refused our hello."""
        if "[security.revoked]" in why:
            self._problems.set(
                "membership",
                Problem(
                    "security.revoked",
                    f"This node is no member any more, says the one at {_host(address)}.",
                    "If that is a mistake, ask the founder; it can come back only with a new state folder and a new "
                    "invitation.",
                    critical=True,
                ),
            )

    async def _compare(self, way: Way) -> None:
        assert self._own is not None
        ours = self._own.revocations.signed
        request = mesh_pb2.RevocationsRequest(revocations=None if ours is None else signed_to_wire(ours))
        reply = await way.stub.Revocations(request, timeout=HELLO_SECONDS)
        if reply.HasField("revocations"):
            self.exchange(signed_from_wire(reply.revocations))

    def _revoked(self) -> None:
        """There are new revocations: from now on nothing goes to those put out, and nothing comes from them."""
        assert self._own is not None
        self._me.revocations = self._own.revocations.number
        self._own.tls.refresh()
        for node in self._own.revocations.revoked:
            self._forget_clone(node)
            self._put_out(node)

    def _told_of_clone(self, answer: Answer) -> None:
        """A peer tells that another device has our identity, or tells it no more."""
        if answer.clone:
            self._hear_of_clone(answer.who.node, answer.clone)
        else:
            self._tellers.pop(answer.who.node, None)
            self._forget_tellers()

    def _met_ourselves(self, who: Introduction, address: str) -> None:
        if who.instance != self._me.instance:
            self._hear_of_clone(who.node, address)

    def _hear_of_clone(self, teller: str, source: str) -> None:
        self._tellers[teller] = self._clock()
        self._problems.set("identity", cloned(source), SAID_EVERY_SECONDS)

    def _forget_tellers(self) -> None:
        """Who has not told of our clone for long may be gone, as the clone may be."""
        since = self._clock() - FORGET_SECONDS
        self._tellers = {teller: told for teller, told in self._tellers.items() if told > since}
        if not self._tellers:
            self._problems.clear("identity")


def cloned(source: str) -> Problem:
    """Return what is said where another device, at ``source``, has this node's identity too."""
    return Problem(
        "identity.cloned",
        f"Another device, at {_host(source)}, has the identity of this node, as after copying a disk; only one of them "
        "is mixed.",
        "Stop one, remove its state folder, and let it join anew.",
        critical=True,
    )


def _host(source: str) -> str:
    """Return the host of an address or of a connection's source: its port says nothing."""
    return source.rpartition(":")[0].removeprefix("ipv4:").removeprefix("ipv6:")
