"""Transcripts of edges with neighbours whose snapshots are off, or have been used already."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from decaf_node.mesh import events as ev
from decaf_node.mesh.clipping import ALONE, FEW, LONE
from decaf_node.mesh.events import Edge, Effect, Receipt, Saved
from decaf_node.mesh.scoring import CROWD as CROWD_OF_HARM
from tests.mesh.script import POLICY, SCHEMA, Script, offer, snapshot


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
    clipped = 0.25 * FEW / 100.0
    assert weight(inspected(s, "d", 100.0)) == pytest.approx(clipped)
    assert {peer.peer: peer.clip_factor for peer in s.node.view(s.now).peers} == {
        "a": 1.0,
        "c": 1.0,
        "d": FEW / 100.0,
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
    assert weight(inspected(s, "d", 1.0, plain_distance=5.0, plain_norm=1.0)) == pytest.approx(0.25 * FEW * 0.1 / 5.0)


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
    assert s.play(far) == [ev.SaveReceipt("c", Receipt("b1", "c1", 0.5 * LONE), LONE)]


def test_the_first_of_several_is_measured_by_our_own_norm() -> None:
    s = among_three()
    assert weight(inspected(s, "d", 100.0)) == pytest.approx(0.25 * ALONE / 100.0)


def test_harm_counts_where_it_is_asked_for() -> None:
    for robust, expected in (("clip", 0.25), ("score", 0.25 * (CROWD_OF_HARM * 0.2 / 4.0) ** 2)):
        s = among_three(robust)
        for peer in "ac":
            assert weight(inspected(s, peer, 1.0, harm=0.2)) == 0.25
        assert weight(inspected(s, "d", 1.0, harm=4.0)) == pytest.approx(expected)
        assert [peer.harm for peer in s.node.view(s.now).peers] == [0.2, 0.2, 4.0]


def test_distance_and_harm_count_both() -> None:
    s = among_three("score")
    for peer in "ac":
        inspected(s, peer, 1.0, harm=0.5)
    assert weight(inspected(s, "d", 10.0, harm=2.0)) == pytest.approx(
        0.25 * (FEW / 10.0) * (CROWD_OF_HARM * 0.5 / 2.0) ** 2
    )


@pytest.mark.parametrize("figure", ["norm", "plain_distance", "plain_norm"])
def test_figures_that_are_not_finite_are_refused(figure: str) -> None:
    s = among_three()
    s.play(ev.SnapshotReceived("d", "d1"))
    figures: dict[str, Any] = {figure: float("inf")}
    [refusal] = s.play(replace(ev.SnapshotInspected("d", "d1", True, 1.0), **figures))
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.not-finite"


# --- replays ---------------------------------------------------------------------------------------------------------


def mixed_once() -> Script:
    """Return a node that has mixed b1 with c1, and published b2."""
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1", degree=1), incoming=False))
    s.complete("c", "b1", "c1", 0.5)
    s.finish_round(1)
    s.publish(2)
    return s


def reason(effects: list[Effect]) -> str:
    [reason] = [effect.reason for effect in effects if isinstance(effect, ev.RefuseEdge)]
    return reason


def test_a_snapshot_counts_once_whoever_opens_the_stream() -> None:
    s = mixed_once()
    assert reason(s.play(ev.OfferReceived("c", offer("c1", degree=1, mixes=1), incoming=False))) == "mesh.used-snapshot"
    s = mixed_once()
    assert reason(s.play(ev.OfferReceived("c", offer("c1", degree=1, mixes=1), incoming=True))) == "mesh.used-snapshot"


def test_a_used_snapshot_under_another_round_number_counts_no_more() -> None:
    s = mixed_once()
    assert (
        reason(s.play(ev.OfferReceived("c", offer("c1", round=7, degree=1, mixes=1), incoming=True)))
        == "mesh.used-snapshot"
    )


def test_a_copy_of_an_older_round_is_refused_as_well() -> None:
    s = mixed_once()
    s.play(ev.OfferReceived("c", offer("c2", round=2, degree=1, mixes=1), incoming=False))
    s.complete("c", "b2", "c2", 0.5)
    s.finish_round(2)
    s.publish(3)
    assert reason(s.play(ev.OfferReceived("c", offer("c1", degree=1, mixes=1), incoming=True))) == "mesh.used-snapshot"


def test_the_next_snapshot_is_mixed_after_a_replay_without_delay() -> None:
    s = mixed_once()
    s.play(ev.OfferReceived("c", offer("c1", degree=1, mixes=1), incoming=True))
    effects = s.play(ev.OfferReceived("c", offer("c2", round=2, degree=1, mixes=1), incoming=True))
    assert effects[-1] == ev.FetchSnapshot("c", snapshot("c2", 2))


def test_one_peers_snapshot_may_be_anothers_too() -> None:
    """Two members with one state offer the same digest: each counts once."""
    s = Script().start("a", "c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("x1"), incoming=False))
    s.complete("c", "b1", "x1", 1 / 3)
    assert s.play(ev.OfferReceived("a", offer("x1"), incoming=True))[-1] == ev.FetchSnapshot("a", snapshot("x1"))


def test_an_edge_that_goes_on_on_another_stream_is_no_replay() -> None:
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1", degree=1, mixes=1), incoming=False))
    s.fetch("c", "c1")
    s.promise("c", "b1", "c1", 0.5)
    s.play(ev.EdgeBroken("c", "gone"))
    effects = s.play(ev.OfferReceived("c", offer("c1", degree=1, mixes=1), incoming=True))
    assert [type(effect).__name__ for effect in effects] == ["SendReceipt", "AnswerEdge", "SendReceipt"]
    assert s.receive("c", "b1", "c1", 0.5) == [ev.CloseEdge("c")]
    assert s.node.edges.ledger.ready == (Edge("c", "b1", "c1", 0.5),)


def test_who_has_not_heard_our_receipt_hears_it_before_the_refusal() -> None:
    """It could not know that the edge counts here, and offers the snapshot again."""
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1", degree=1, mixes=1), incoming=False))
    s.complete("c", "b1", "c1", 0.5)
    effects = s.play(ev.OfferReceived("c", offer("c1", degree=1, mixes=1), incoming=True))
    assert effects[0] == ev.SendReceipt("c", Receipt("b1", "c1", 0.5))
    assert reason(effects) == "mesh.used-snapshot"


def test_after_a_crash_a_snapshot_whose_edge_is_mixed_again_is_used() -> None:
    saved = Saved(1, 1, SCHEMA, snapshot("s1"), unsaved=(Edge("c", "b1", "c1", 0.5),))
    s = Script(saved=saved).start("c")
    s.publish(2)
    assert reason(s.play(ev.OfferReceived("c", offer("c1", degree=1, mixes=1), incoming=True))) == "mesh.used-snapshot"
