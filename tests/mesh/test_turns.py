"""Transcripts of graphs with one partner a turn. Of nodes a, b, c, d, ``b`` meets d in odd turns and a in even ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from decaf_node.mesh import events as ev
from decaf_node.mesh import objections
from decaf_node.mesh.events import Edge, Offer, Receipt
from decaf_node.mesh.published import TRIES
from decaf_node.mesh.turns import LEAP, Turns
from tests.mesh.script import POLICY, SCHEMA, Script, offer, snapshot

ONE_PEER = replace(POLICY, topology="one-peer-exponential")
BASE_K = replace(POLICY, topology="base-k")


def ours(name: str, turn: int, mixes: int = 0) -> Offer:
    return Offer(SCHEMA, snapshot(name, int(name[1:])), int(name[1:]), 1, mixes, turn=turn)


def theirs(name: str, turn: int) -> Offer:
    return replace(offer(name, int(name[1:]), degree=1), turn=turn)


def in_turn_two() -> Script:
    """It has nobody in turn 1, and now waits for ``a``, the lower one."""
    s = Script(ONE_PEER).start("a", "c", "d")
    s.publish(1)
    s.play(ev.EdgeRefused("d", objections.NO_ROOM.reason, objections.NO_ROOM.message))
    s.finish_round(1)
    assert s.publish(2) == []
    assert s.node.view(s.now).waiting_for == ("a",)
    return s


def test_two_rounds_with_one_partner_each() -> None:
    s = Script(ONE_PEER).start("a", "c", "d")
    assert s.publish(1) == [ev.OpenEdge("d", ours("b1", 1))]
    assert s.node.view(s.now).waiting_for == ("d",)
    s.play(ev.OfferReceived("d", theirs("d1", 1), incoming=False))
    assert s.complete("d", "b1", "d1", 0.5)[-1] == ev.MixRound(1, (Edge("d", "b1", "d1", 0.5),))
    s.finish_round(1)
    assert s.play(ev.OfferReceived("a", theirs("a2", 2), incoming=True)) == []
    assert s.publish(2) == [ev.AnswerEdge("a", ours("b2", 2, 1)), ev.FetchSnapshot("a", snapshot("a2", 2))]
    assert s.complete("a", "b2", "a2", 0.5)[-1] == ev.MixRound(2, (Edge("a", "b2", "a2", 0.5),))


def test_an_offer_of_a_later_turn_waits_for_it() -> None:
    s = Script(ONE_PEER).start("a", "c", "d")
    s.publish(1)
    assert s.play(ev.OfferReceived("a", theirs("a2", 2), incoming=True)) == []
    s.play(ev.EdgeBroken("d", "cut"))
    s.wait()
    s.finish_round(1)
    assert ev.AnswerEdge("a", ours("b2", 2)) in s.publish(2)


def test_who_is_behind_is_taken_and_the_partner_of_the_turn_has_its_place_all_the_same() -> None:
    s = in_turn_two()
    assert s.play(ev.OfferReceived("d", theirs("d1", 1), incoming=True))[0] == ev.AnswerEdge("d", ours("b2", 2))
    assert s.node.view(s.now).waiting_for == ("a", "d")
    assert s.play(ev.OfferReceived("a", theirs("a2", 2), incoming=True))[0] == ev.AnswerEdge("a", ours("b2", 2))
    s.complete("d", "b2", "d1", 0.5)
    edges = (Edge("d", "b2", "d1", 0.5), Edge("a", "b2", "a2", 0.5))  # half each: together never above 1
    assert s.complete("a", "b2", "a2", 0.5)[-1] == ev.MixRound(2, edges)


def test_who_has_had_its_edge_of_this_turn_is_told_that_there_is_no_room() -> None:
    s = in_turn_two()
    s.play(ev.OfferReceived("a", theirs("a2", 2), incoming=True))
    s.complete("a", "b2", "a2", 0.5)
    assert s.play(ev.OfferReceived("a", theirs("a3", 2), incoming=True))[-1] == ev.RefuseEdge(
        "a", objections.NO_ROOM.reason, objections.NO_ROOM.message
    )


def test_who_is_behind_and_comes_too_late_is_first_in_the_next_turn() -> None:
    s = in_turn_two()
    s.play(ev.OfferReceived("a", theirs("a2", 2), incoming=True))
    s.complete("a", "b2", "a2", 0.5)
    s.finish_round(2)
    assert s.play(ev.OfferReceived("d", replace(theirs("d1", 1), mixes=1), incoming=True)) == []
    assert s.publish(3)[0] == ev.AnswerEdge("d", ours("b3", 3, 1))


def test_who_is_no_neighbour_in_any_turn_is_refused() -> None:
    s = in_turn_two()
    [refusal] = s.play(ev.OfferReceived("c", theirs("c2", 2), incoming=True))
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.not-a-neighbour"


def test_no_room_is_nobodys_fault() -> None:
    s = in_turn_two()
    assert [peer.problem for peer in s.node.view(s.now).peers] == ["", "", ""]


def test_a_slow_node_skips_to_the_turn_of_the_others() -> None:
    s = Script(ONE_PEER).start("a", "c", "d")
    s.publish(1)
    s.play(ev.OfferReceived("a", theirs("a8", 8), incoming=True))
    s.play(ev.EdgeBroken("a", "it goes on"), ev.EdgeBroken("d", "cut"))
    s.wait()
    s.finish_round(1)
    assert s.publish(2)[-1] == ev.OpenEdge("d", ours("b2", 9))  # a's turn 8 is over


@pytest.mark.parametrize(("me", "peer"), [("a", "c"), ("c", "a")])
def test_both_ends_apply_the_weight_of_the_graph(me: str, peer: str) -> None:
    s = Script(BASE_K, me=me).start(*sorted({"a", "b", "c"} - {me}))
    s.publish(1)
    s.play(ev.OfferReceived(peer, theirs(f"{peer}1", 1), incoming=me == "c"))
    assert s.fetch(peer, f"{peer}1") == [ev.SaveReceipt(peer, Receipt("b1", f"{peer}1", 2 / 3))]


def test_in_different_turns_the_weight_is_metropolis() -> None:
    s = Script(BASE_K, me="c").start("a", "b")
    s.publish(1)
    s.play(ev.OfferReceived("a", theirs("a4", 4), incoming=True))
    assert s.fetch("a", "a4") == [ev.SaveReceipt("a", Receipt("b1", "a4", 0.5))]


def test_what_is_owed_scales_the_weight_of_the_graph() -> None:
    s = Script(BASE_K, me="a").start("b", "c")
    s.publish(1)
    s.play(ev.OfferReceived("c", theirs("c1", 1), incoming=False))
    s.fetch("c", "c1")
    s.promise("c", "b1", "c1", 2 / 3)
    s.wait()
    s.finish_round(1)
    s.publish(2)
    s.play(ev.OfferReceived("b", theirs("b9", 2), incoming=False))
    [save] = s.fetch("b", "b9")
    assert isinstance(save, ev.SaveReceipt)
    assert save.receipt.weight == pytest.approx(1 / 6)


def test_a_late_edge_takes_no_more_than_the_weight_of_the_graph_leaves() -> None:
    s = Script(replace(BASE_K, wait_ceiling=4.0), me="a").start("b", "c")
    s.publish(1)
    for turn in (2, 3):  # b's edge of turn 2 is on its way when turn 4 begins
        s.wait()
        s.finish_round(turn - 1)
        s.publish(turn)
        if turn == 2:
            s.play(ev.OfferReceived("b", theirs("b9", 2), incoming=False))
    s.wait()
    s.finish_round(3)
    s.publish(4)
    s.play(ev.OfferReceived("c", theirs("c4", 4), incoming=False))
    weights = []
    for peer, digest in (("c", "c4"), ("b", "b9")):
        [save] = s.fetch(peer, digest)
        assert isinstance(save, ev.SaveReceipt)
        weights.append(save.receipt.weight)
    assert weights[0] == 2 / 3
    assert sum(weights) <= 1.0


def test_no_peer_can_exhaust_the_counter() -> None:
    turns = Turns()
    turns.hear("a", 2**53)
    assert turns.begin(held=()) == LEAP
    assert turns.begin(held=()) == LEAP + 1


def test_a_stream_that_a_slow_partner_holds_stays_open_over_our_turns() -> None:
    s = Script(ONE_PEER).start("a", "c", "d")
    assert s.publish(1) == [ev.OpenEdge("d", ours("b1", 1))]
    s.wait()
    s.finish_round(1)
    assert s.publish(2) == []  # d's stream is not closed
    assert s.node.view(s.now).waiting_for == ("a",)
    s.play(ev.OfferReceived("a", theirs("a2", 2), incoming=True))
    s.complete("a", "b2", "a2", 0.5)
    s.finish_round(2)
    s.publish(4)  # a's turn 2 was heard, so this is turn 3: d's own
    assert s.node.edges.sessions.keys() == {"d"}


def test_the_slow_partner_answers_when_it_comes_to_that_turn_beside_the_partner_of_ours() -> None:
    s = Script(ONE_PEER).start("a", "c", "d")
    s.publish(1)
    s.wait()
    s.finish_round(1)
    s.publish(2)
    s.play(ev.OfferReceived("a", theirs("a2", 2), incoming=True))
    s.play(ev.OfferReceived("d", theirs("d1", 1), incoming=False))
    assert s.complete("d", "b1", "d1", 0.5) == [ev.CloseEdge("d")]
    assert s.complete("a", "b2", "a2", 0.5)[-1] == ev.MixRound(
        2, (Edge("d", "b1", "d1", 0.5), Edge("a", "b2", "a2", 0.5))
    )


def test_the_stream_of_a_missed_partner_stays_open_in_a_turn_without_one() -> None:
    """Of three nodes in base-k, ``b`` meets a in turns 2 and 3, and nobody in turn 4."""
    s = Script(BASE_K).start("a", "c")
    for turn in (1, 2):
        s.publish(turn)
        s.wait_for_mix()
        s.finish_round(turn)
    assert s.publish(3) == [ev.CloseEdge("a"), ev.OpenEdge("a", ours("b3", 3))]
    s.wait_for_mix()
    s.finish_round(3)
    assert s.publish(4) == []  # a was missed: its stream is not closed, and it is waited for
    assert s.node.view(s.now).waiting_for == ("a",)
    s.play(ev.OfferReceived("a", theirs("a3", 3), incoming=False))
    assert s.complete("a", "b3", "a3", 0.5)[-1] == ev.MixRound(4, (Edge("a", "b3", "a3", 0.5),))


def test_a_promise_that_was_not_answered_is_said_again_whoever_is_the_partner_now() -> None:
    s = Script(ONE_PEER).start("a", "c", "d")
    s.publish(1)
    s.play(ev.OfferReceived("d", theirs("d1", 1), incoming=False))
    s.fetch("d", "d1")
    s.promise("d", "b1", "d1", 0.5)
    for _ in range(TRIES):  # each in vain
        s.play(ev.EdgeBroken("d", "cut"))
        s.play(ev.Tick(), after=10.0)
    s.finish_round(1)
    assert s.publish(2) == [ev.OpenEdge("d", ours("b2", 2), (Receipt("b1", "d1", 0.5),))]
    assert s.node.view(s.now).waiting_for == ("a",)


def test_a_promise_goes_on_where_a_stream_of_its_pair_is_answered_in_a_later_turn() -> None:
    s = Script(ONE_PEER).start("a", "c", "d")
    s.publish(1)
    s.play(ev.OfferReceived("d", theirs("d1", 1), incoming=False))
    s.fetch("d", "d1")
    s.promise("d", "b1", "d1", 0.5)
    s.play(ev.EdgeBroken("d", "cut"))
    assert s.wait() == [ev.OpenEdge("d", ours("b1", 1), (Receipt("b1", "d1", 0.5),))]
    s.wait_for_mix()
    s.finish_round(1)
    assert s.publish(2) == []
    offered = s.play(ev.OfferReceived("d", theirs("d1", 1), incoming=False))
    assert offered == [ev.SendReceipt("d", Receipt("b1", "d1", 0.5))]
    assert s.receive("d", "b1", "d1", 0.5)[0] == ev.CloseEdge("d")
    assert s.wait_for_mix() == [ev.MixRound(2, (Edge("d", "b1", "d1", 0.5),))]
