"""A simulator that finds nothing proves nothing: bugs planted on purpose, each caught by its check."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from decaf_node.mesh import events as ev
from decaf_node.mesh.edges import Edges
from decaf_node.mesh.events import Effect, Receipt, Saved
from decaf_node.mesh.ledger import Ledger, Promise
from decaf_node.mesh.node import Node
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.waiting import Waiting
from decaf_node.sim.disk import SavedRound
from decaf_node.sim.faults import PROFILES
from decaf_node.sim.host import Host
from decaf_node.sim.plan import Plan
from decaf_node.sim.run import Finding, play
from decaf_node.sim.world import World

STORM = Plan(nodes=5, topology="full", rounds=20, round_seconds=10.0, spread=4.0, faults=PROFILES["storm"])
SEEDS = range(20)


def first_finding(make: type[World]) -> Finding:
    """Return what the first seeds find in a world with a bug; in the sound one they find nothing."""
    for seed in SEEDS:
        if (finding := play(STORM, seed, make).finding) is not None:
            return finding
    raise AssertionError("the planted bug was not found")


class OwnWeight(Ledger):
    """Applies the weight that it proposed itself, where the edge is to use the smaller one of both ends."""

    def settle(self, peer: str, theirs: Receipt) -> Promise:
        ours = self.promised(peer)
        assert ours is not None
        return super().settle(peer, Receipt(theirs.own, theirs.theirs, ours.receipt.weight))


class OneSidedWeights(World):
    def make_node(self, name: str, policy: Policy, random: Random, saved: Saved | None) -> Node:
        node = super().make_node(name, policy, random, saved)
        node.edges.ledger.__class__ = OwnWeight
        return node


class AcknowledgedBeforeFsync(World):
    """Says that a round is saved, and writes it a moment later."""

    def commit(self, host: Host, saved: SavedRound, effect: ev.SaveRound) -> None:
        host.later(0.01, self.acknowledge, host, saved.round)
        host.later(5.0, host.disk.commit, saved, effect.covers, effect.unheard)


class Patient(Waiting):
    """Knows no deadlines: waits for whoever may still come."""

    def awaited(self, now: float, last: bool) -> tuple[tuple[str, float], ...]:
        published = self._edges.published
        hoped_for = () if published is None else self._hoped_for(published, now)
        return tuple((peer, now + 1.0) for peer in hoped_for)


class DeadlineThatNeverFires(World):
    def make_node(self, name: str, policy: Policy, random: Random, saved: Saved | None) -> Node:
        node = super().make_node(name, policy, random, saved)
        node.rounds._waiting.__class__ = Patient
        return node


class Hoarding(Edges):
    """Forgets a stream on which all is said, and leaves it open."""

    def receipt_received(self, peer: str, receipt: Receipt, now: float) -> list[Effect]:
        super().receipt_received(peer, receipt, now)
        return []


class StreamsLeftOpen(World):
    def make_node(self, name: str, policy: Policy, random: Random, saved: Saved | None) -> Node:
        node = super().make_node(name, policy, random, saved)
        node.edges.__class__ = Hoarding
        return node


class OlderState(World):
    """Starts a node from the round before the one that it has saved."""

    def make_node(self, name: str, policy: Policy, random: Random, saved: Saved | None) -> Node:
        return super().make_node(name, policy, random, saved and replace(saved, round=saved.round - 1))


@pytest.mark.slow
def test_the_sound_world_has_no_findings() -> None:
    findings = [play(STORM, seed).finding for seed in SEEDS]
    assert findings == [None] * len(SEEDS), findings


def test_one_sided_weights_are_found() -> None:
    finding = first_finding(OneSidedWeights)
    assert finding.check == "weights"
    assert "at one end and" in finding.message


def test_a_save_acknowledged_before_fsync_is_found() -> None:
    finding = first_finding(AcknowledgedBeforeFsync)
    assert finding.check == "durable"
    assert "was acknowledged as saved" in finding.message


def test_a_deadline_that_never_fires_is_found() -> None:
    finding = first_finding(DeadlineThatNeverFires)
    assert finding.check == "wait"
    assert "above the ceiling" in finding.message
    assert any("RoundTrained" in line or "Probe" in line for line in finding.transcript)


def test_a_stream_that_nobody_closes_is_found() -> None:
    assert first_finding(StreamsLeftOpen).check == "streams"


def test_a_round_number_that_goes_back_is_found() -> None:
    assert first_finding(OlderState).check == "round-number"
