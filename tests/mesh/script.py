"""A node under test and short words for what happens to it: node ``b`` between ``a`` (lower ID) and ``c`` (higher)."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Effect, Event, Offer, Receipt, Saved, Snapshot
from decaf_node.mesh.node import Node
from decaf_node.mesh.policy import Policy

SCHEMA = "5c" * 32
POLICY = Policy(wait_floor=1.0, wait_ceiling=40.0, save_every=0.0, overlap=False)


def snapshot(name: str, round: int = 1, size: int = 1000) -> Snapshot:
    return Snapshot(name, round, 8, size)


def offer(name: str, round: int = 1, degree: int = 2, mixes: int = 0) -> Offer:
    """Return a peer's offer of a snapshot."""
    return Offer(SCHEMA, snapshot(name, round), round, degree, mixes)


class Script:
    """Plays events to a node; probes are left out of what comes back unless asked for."""

    def __init__(self, policy: Policy = POLICY, saved: Saved | None = None, me: str = "b") -> None:
        self.node = Node(me, policy, Random(1), saved)
        self.now = 0.0

    def play(self, *events: Event, after: float = 0.0) -> list[Effect]:
        """Hand the events in ``after`` seconds from now; return what the last one led to."""
        self.now += after
        effects: list[Effect] = []
        for event in events:
            effects = self.node.step(event, self.now)
        return [effect for effect in effects if not isinstance(effect, ev.ProbePeer)]

    def probed(self, *events: Event, after: float = 0.0) -> list[str]:
        """Play, and return only who is probed."""
        self.now += after
        effects = [effect for event in events for effect in self.node.step(event, self.now)]
        return [effect.peer for effect in effects if isinstance(effect, ev.ProbePeer)]

    def wait(self) -> list[Effect]:
        """Let time pass up to the node's next deadline that leads to more than probes."""
        for _ in range(1000):
            deadline = self.node.deadline()
            assert deadline is not None, "it waits for nothing"
            self.now = max(self.now, deadline)
            if effects := self.play(ev.Tick()):
                return effects
        raise AssertionError("nothing comes of waiting")

    def wait_for_mix(self) -> list[Effect]:
        """Let time pass until the node mixes what has come; return what that led to."""
        effects: list[Effect] = []
        while self.phase != "mixing":
            effects = self.wait()
        return effects

    @property
    def phase(self) -> str:
        return self.node.view(self.now).phase

    # --- longer stretches ------------------------------------------------------------------------------------

    def meet(self, *peers: str) -> Script:
        """These peers answer a probe."""
        for peer in peers:
            self.play(ev.PeerAnswered(peer, peer.upper(), SCHEMA, 1))
        return self

    def start(self, *peers: str) -> Script:
        """The trainer starts, and these peers are alive."""
        self.meet(*peers)
        self.play(ev.TrainerStarted(SCHEMA, 8))
        return self

    def publish(self, round: int = 1) -> list[Effect]:
        """The trainer publishes snapshot ``b<round>`` after 10 s; the others are heard just before."""
        self.now += 10.0
        self.meet(*(peer.peer for peer in self.node.view(self.now).peers if peer.state != "gone"))
        return self.play(ev.RoundTrained(snapshot(f"b{round}", round)))

    def finish_round(self, round: int) -> list[Effect]:
        """The mix is loaded and saved."""
        return self.play(ev.RoundMixed(round), ev.RoundSaved(round), after=1.0)

    def fetch(self, peer: str, theirs: str) -> list[Effect]:
        """The peer's snapshot comes and is inspected; returns ``SaveReceipt``."""
        self.play(ev.SnapshotReceived(peer, theirs), after=0.5)
        return self.play(ev.SnapshotInspected(peer, theirs, True, 2.5))

    def promise(self, peer: str, own: str, theirs: str, weight: float) -> list[Effect]:
        """Our receipt is saved."""
        return self.play(ev.ReceiptSaved(peer, Receipt(own, theirs, weight)))

    def receive(self, peer: str, own: str, theirs: str, weight: float) -> list[Effect]:
        """The peer's receipt comes (``own`` and ``theirs`` as we see them)."""
        return self.play(ev.ReceiptReceived(peer, Receipt(theirs, own, weight)))

    def complete(self, peer: str, own: str, theirs: str, weight: float) -> list[Effect]:
        """All from the peer's offer onwards; returns what its receipt led to."""
        self.fetch(peer, theirs)
        self.promise(peer, own, theirs, weight)
        return self.receive(peer, own, theirs, weight)


def limited(rounds: int) -> Policy:
    return replace(POLICY, limit=rounds)
