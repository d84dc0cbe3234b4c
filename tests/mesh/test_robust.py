"""Transcripts of edges with neighbours whose snapshots are off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from decaf_node.mesh import events as ev
from decaf_node.mesh.clipping import ALONE, CROWD, LONE
from decaf_node.mesh.events import Effect, Receipt
from tests.mesh.script import POLICY, Script, offer


def among_three(robust: str = "clip") -> Script:
    """Return a node that has published its first snapshot among a, c and d."""
    s = Script(replace(POLICY, robust=robust)).start("a", "c", "d")
    s.publish(1)
    s.play(ev.OfferReceived("a", offer("a1", degree=3), incoming=True))
    for peer in "cd":
        s.play(ev.OfferReceived(peer, offer(f"{peer}1", degree=3), incoming=False))
    return s


def inspected(s: Script, peer: str, distance: float, **more: Any) -> list[Effect]:
    """Play that the peer's snapshot has come and was looked at."""
    s.play(ev.SnapshotReceived(peer, f"{peer}1"))
    return s.play(replace(ev.SnapshotInspected(peer, f"{peer}1", True, distance, norm=1.0), **more))


def weight(effects: list[Effect]) -> float:
    [save] = effects
    assert isinstance(save, ev.SaveReceipt)
    return save.receipt.weight


def test_a_neighbour_that_is_far_off_has_its_weight_clipped_in_our_receipt() -> None:
    s = among_three()
    assert weight(inspected(s, "a", 1.0)) == 0.25
    assert weight(inspected(s, "c", 1.0)) == 0.25
    clipped = 0.25 * CROWD / 100.0
    assert weight(inspected(s, "d", 100.0)) == pytest.approx(clipped)
    assert {peer.peer: peer.clip_factor for peer in s.node.view(s.now).peers} == {
        "a": 1.0,
        "c": 1.0,
        "d": CROWD / 100.0,
    }


def test_switched_off_every_distance_counts_in_full() -> None:
    s = among_three("off")
    assert [weight(inspected(s, peer, distance)) for peer, distance in [("a", 1.0), ("c", 1.0), ("d", 1e9)]] == [
        0.25
    ] * 3
    assert [peer.distance for peer in s.node.view(s.now).peers] == [1.0, 1.0, 1e9]


def test_the_edge_counts_with_the_clipped_weight_though_the_peer_proposes_more() -> None:
    s = among_three()
    for peer in "ac":
        weight(inspected(s, peer, 1.0))
        s.promise(peer, "b1", f"{peer}1", 0.25)
        s.receive(peer, "b1", f"{peer}1", 0.25)
    ours = weight(inspected(s, "d", 100.0))
    s.promise("d", "b1", "d1", ours)
    [_, mix] = s.receive("d", "b1", "d1", 0.25)
    assert isinstance(mix, ev.MixRound)
    assert [(edge.peer, edge.weight) for edge in mix.edges] == [("a", 0.25), ("c", 0.25), ("d", ours)]


def test_a_head_that_lies_is_clipped() -> None:
    s = among_three()
    for peer in "ac":
        inspected(s, peer, 1.0, plain_distance=0.1, plain_norm=1.0)
    assert weight(inspected(s, "d", 1.0, plain_distance=5.0, plain_norm=1.0)) == pytest.approx(0.25 * CROWD * 0.1 / 5.0)


def test_who_is_out_of_all_proportion_is_refused_and_left_alone_for_a_while() -> None:
    s = among_three()
    inspected(s, "a", 1.0)
    inspected(s, "c", 1.0)
    [refusal] = inspected(s, "d", 1e12)
    assert isinstance(refusal, ev.RefuseEdge)
    assert (refusal.peer, refusal.reason) == ("d", "mesh.too-far")
    [refusal] = s.play(ev.OfferReceived("d", offer("d2", round=2, degree=3), incoming=True))
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.backing-off"


def test_two_nodes_that_trained_alone_for_long_mix_with_a_tenth_at_least() -> None:
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1", degree=1), incoming=False), ev.SnapshotReceived("c", "c1"))
    far = ev.SnapshotInspected("c", "c1", True, 1e6, norm=1.0)
    assert s.play(far) == [ev.SaveReceipt("c", Receipt("b1", "c1", 0.5 * LONE))]


def test_the_first_of_several_is_measured_by_our_own_norm() -> None:
    s = among_three()
    assert weight(inspected(s, "d", 100.0)) == pytest.approx(0.25 * ALONE / 100.0)


@pytest.mark.parametrize("figure", ["norm", "plain_distance", "plain_norm"])
def test_figures_that_are_not_finite_are_refused(figure: str) -> None:
    s = among_three()
    s.play(ev.SnapshotReceived("d", "d1"))
    figures: dict[str, Any] = {figure: float("inf")}
    [refusal] = s.play(replace(ev.SnapshotInspected("d", "d1", True, 1.0), **figures))
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.not-finite"
