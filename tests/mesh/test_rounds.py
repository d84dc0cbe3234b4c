"""Transcripts of rounds: what happens on the left, exactly what is done about it on the right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Edge, Offer, Receipt
from decaf_node.mesh.policy import Policy
from tests.mesh.script import POLICY, SCHEMA, Script, limited, offer, snapshot

THIRD = 1 / 3


def ours(name: str, round: int, degree: int, mixes: int = 0) -> Offer:
    return Offer(SCHEMA, snapshot(name, round), round, degree, mixes)


def test_a_round_between_a_lower_and_a_higher_neighbour() -> None:
    s = Script().meet("a", "c")
    assert s.play(ev.TrainerStarted(SCHEMA, 8)) == [ev.StartTraining(1, resume=False)]
    # a is the lower one: it opens, early, and waits for us; we open to c
    assert s.play(ev.OfferReceived("a", offer("a1"), incoming=True)) == []
    assert s.publish(1) == [
        ev.AnswerEdge("a", ours("b1", 1, 2)),
        ev.FetchSnapshot("a", snapshot("a1")),
        ev.OpenEdge("c", ours("b1", 1, 2)),
    ]
    assert s.play(ev.OfferReceived("c", offer("c1", degree=3), incoming=False)) == [
        ev.FetchSnapshot("c", snapshot("c1"))
    ]
    assert s.play(ev.SnapshotReceived("a", "a1")) == [ev.InspectSnapshot("a", "a1", "b1")]
    assert s.play(ev.SnapshotInspected("a", "a1", True, 2.5)) == [ev.SaveReceipt("a", Receipt("b1", "a1", THIRD))]
    assert s.play(ev.ReceiptSaved("a", Receipt("b1", "a1", THIRD))) == [ev.SendReceipt("a", Receipt("b1", "a1", THIRD))]
    assert s.play(ev.SnapshotReceived("c", "c1")) == [ev.InspectSnapshot("c", "c1", "b1")]
    # c has three neighbours, so its edge weighs less; and its receipt comes before ours is sent
    assert s.receive("c", "b1", "c1", 0.25) == []
    assert s.play(ev.SnapshotInspected("c", "c1", True, 2.5)) == [ev.SaveReceipt("c", Receipt("b1", "c1", 0.25))]
    assert s.play(ev.ReceiptSaved("c", Receipt("b1", "c1", 0.25))) == [
        ev.SendReceipt("c", Receipt("b1", "c1", 0.25)),
        ev.CloseEdge("c"),
    ]
    assert s.node.view(s.now).waiting_for == ("a",)
    # a proposes less than we do: the edge uses the smaller weight
    edges = (Edge("c", "b1", "c1", 0.25), Edge("a", "b1", "a1", 0.3))
    assert s.receive("a", "b1", "a1", 0.3) == [ev.CloseEdge("a"), ev.MixRound(1, edges)]
    assert {"b1", "a1", "c1"} <= s.node.needed()
    [save] = s.play(ev.RoundMixed(1))
    assert isinstance(save, ev.SaveRound)
    assert (save.round, save.mixes, sorted(edge.peer for edge in save.covers)) == (1, 1, ["a", "c"])
    assert s.play(ev.RoundSaved(1)) == []
    assert (s.phase, s.node.phase.round) == ("training", 2)
    assert s.node.needed() == {"b1"}


def test_a_node_without_neighbours_trains_on() -> None:
    s = Script().start()
    assert s.publish(1) == [ev.MixRound(1, ())]
    assert s.play(ev.RoundMixed(1)) == [ev.SaveRound(1, 0)]
    s.play(ev.RoundSaved(1))
    assert s.publish(2) == [ev.MixRound(2, ())]


@pytest.mark.parametrize(
    "loss",
    [
        ev.EdgeBroken("c", "connection reset"),
        ev.PeerSilent("c", "cannot be dialled"),
        ev.PeerLeft("c"),
        ev.EdgeRefused("c", "mesh.adopting", "This node is new."),
        ev.SnapshotRefused("c", "c1", "it is truncated"),
    ],
)
def test_a_lost_neighbour_is_not_waited_for_and_its_weight_stays_with_us(loss: ev.Event) -> None:
    s = Script().start("a", "c")
    s.play(ev.OfferReceived("a", offer("a1"), incoming=True))
    s.publish(1)
    if isinstance(loss, ev.SnapshotRefused):
        s.play(ev.OfferReceived("c", offer("c1"), incoming=False))
    s.play(loss)
    assert s.phase == "exchanging"
    effects = s.complete("a", "b1", "a1", THIRD)
    assert effects[-1] == ev.MixRound(1, (Edge("a", "b1", "a1", THIRD),))


def test_a_hung_neighbour_is_waited_for_until_its_deadline_only() -> None:
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1"), incoming=False))
    published = s.now
    assert s.wait() == [ev.MixRound(1, ())]
    assert s.now - published == POLICY.wait_ceiling / 4


def test_a_late_edge_counts_in_the_next_round_with_the_snapshots_that_it_paired() -> None:
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1", degree=1), incoming=False))
    s.fetch("c", "c1")
    s.promise("c", "b1", "c1", 0.5)
    assert s.wait() == [ev.MixRound(1, ())]
    s.finish_round(1)
    assert s.receive("c", "b1", "c1", 0.5) == [ev.CloseEdge("c")]
    assert s.publish(2) == [ev.OpenEdge("c", ours("b2", 2, 1), again=(Receipt("b1", "c1", 0.5),))]
    s.play(ev.OfferReceived("c", offer("c2", 2, degree=1), incoming=False))
    # half of ours is owed to the late edge, so this round's edge takes half of the other half
    effects = s.complete("c", "b2", "c2", 0.25)
    assert effects[-1] == ev.MixRound(2, (Edge("c", "b1", "c1", 0.5), Edge("c", "b2", "c2", 0.25)))


def test_an_edge_still_fetching_at_the_next_publishing_goes_on_and_takes_that_rounds_place() -> None:
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1", degree=1), incoming=False))
    assert s.wait() == [ev.MixRound(1, ())]
    s.finish_round(1)
    assert s.publish(2) == []
    effects = s.complete("c", "b1", "c1", 0.5)
    assert effects == [ev.CloseEdge("c"), ev.MixRound(2, (Edge("c", "b1", "c1", 0.5),))]
    # the place is taken: c's next offer waits for round 3
    again = ev.SendReceipt("c", Receipt("b1", "c1", 0.5))
    assert s.play(ev.OfferReceived("c", offer("c2", 2), incoming=True)) == [again]
    assert again not in s.play(ev.RoundMixed(2), ev.RoundSaved(2), ev.RoundTrained(snapshot("b3", 3)))  # once a stream


def test_an_offer_that_comes_while_we_train_is_answered_with_the_unused_snapshot() -> None:
    s = Script().start("a")
    s.publish(1)
    assert s.wait()[0] == ev.OpenEdge("a", ours("b1", 1, 1))  # it knocks, in vain
    assert s.wait() == [ev.MixRound(1, ())]
    s.finish_round(1)
    assert s.phase == "training"
    s.play(ev.EdgeBroken("a", "cut"))
    assert s.play(ev.OfferReceived("a", offer("a1", degree=1), incoming=True)) == [
        ev.AnswerEdge("a", ours("b1", 1, 1)),
        ev.FetchSnapshot("a", snapshot("a1")),
    ]
    s.complete("a", "b1", "a1", 0.5)
    # used: the next one is held until there is a new snapshot
    again = ev.SendReceipt("a", Receipt("b1", "a1", 0.5))
    assert s.play(ev.OfferReceived("a", offer("a2", 2, degree=1), incoming=True)) == [again]
    assert s.publish(2)[0] == ev.AnswerEdge("a", ours("b2", 2, 1))


def test_an_unanswered_offer_is_made_again_with_the_next_snapshot() -> None:
    s = Script().start("c")
    assert s.publish(1) == [ev.OpenEdge("c", ours("b1", 1, 1))]
    s.wait()
    s.finish_round(1)
    assert s.publish(2) == [ev.OpenEdge("c", ours("b2", 2, 1))]
    assert "b1" not in s.node.needed()


def test_the_higher_one_knocks_where_the_lower_one_does_not_know_it() -> None:
    s = Script().start("a")
    assert s.publish(1) == []
    published = s.now
    assert s.wait() == [ev.OpenEdge("a", ours("b1", 1, 1))]
    assert s.now - published == POLICY.wait_ceiling / 8
    s.play(ev.OfferReceived("a", offer("a1", degree=1), incoming=False))
    effects = s.complete("a", "b1", "a1", 0.5)
    assert effects[-1] == ev.MixRound(1, (Edge("a", "b1", "a1", 0.5),))


def test_one_that_we_never_heard_of_becomes_a_member_by_its_offer_and_a_neighbour_at_the_next_publishing() -> None:
    s = Script().start("c")
    s.publish(1)
    assert s.play(ev.OfferReceived("x", offer("x1"), incoming=True)) == []
    assert "x" in [peer.peer for peer in s.node.view(s.now).peers]
    s.play(ev.EdgeBroken("c", "cut"))
    s.finish_round(1)
    s.play(ev.PeerSilent("x", "no address of it is known"))  # the stream that is up says more
    effects = s.publish(2)
    assert ev.AnswerEdge("x", ours("b2", 2, 2)) in effects


def test_in_a_ring_only_its_neighbours_are_taken() -> None:
    s = Script(replace(POLICY, topology="ring")).start("a", "c", "d", "e")
    assert [effect.peer for effect in s.publish(1) if isinstance(effect, ev.OpenEdge)] == ["c"]
    [refusal] = s.play(ev.OfferReceived("d", offer("d1"), incoming=True))
    assert isinstance(refusal, ev.RefuseEdge)
    assert (refusal.peer, refusal.reason) == ("d", "mesh.not-a-neighbour")
    assert s.play(ev.OfferReceived("a", offer("a1"), incoming=True))[0] == ev.AnswerEdge("a", ours("b1", 1, 2))


def test_simultaneous_opens_the_stream_of_the_lower_one_stays() -> None:
    s = Script().start("a")
    s.publish(1)
    assert s.wait() == [ev.OpenEdge("a", ours("b1", 1, 1))]
    # a has opened at the same time: its host refuses our stream, ours takes a's in place of it
    assert s.play(ev.EdgeRefused("a", "mesh.duplicate-stream", "The lower ID has opened one.")) == []
    assert s.node.view(s.now).waiting_for == ("a",)
    assert s.play(ev.OfferReceived("a", offer("a1", degree=1), incoming=True)) == [
        ev.AnswerEdge("a", ours("b1", 1, 1)),
        ev.FetchSnapshot("a", snapshot("a1")),
    ]
    effects = s.complete("a", "b1", "a1", 0.5)
    assert effects[-1] == ev.MixRound(1, (Edge("a", "b1", "a1", 0.5),))


def test_a_broken_stream_is_opened_again_a_few_times() -> None:
    s = Script().start("c", "d")
    s.publish(1)
    opened = 1
    for _ in range(10):
        s.play(ev.EdgeBroken("c", "reset"))
        s.meet("c", "d")
        if (deadline := s.node.deadline()) is None or s.phase != "exchanging":
            break
        s.now = deadline
        opened += sum(isinstance(effect, ev.OpenEdge) and effect.peer == "c" for effect in s.play(ev.Tick()))
    assert opened == 3


def test_what_was_lost_with_a_stream_is_said_again_on_the_next() -> None:
    s = Script().start("c", "d")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1"), incoming=False))
    s.fetch("c", "c1")
    receipt = Receipt("b1", "c1", THIRD)
    assert s.promise("c", "b1", "c1", THIRD) == [ev.SendReceipt("c", receipt)]
    s.play(ev.EdgeBroken("c", "reset"))  # whether c counts it, nobody here knows
    assert {"b1", "c1"} <= s.node.needed()
    s.play(ev.EdgeBroken("d", "reset"))
    s.finish_round(1)
    said = [effect.again for effect in s.publish(2) if isinstance(effect, ev.OpenEdge) and effect.peer == "c"]
    assert said == [(receipt,)]
    s.play(ev.OfferReceived("c", offer("c2", 2), incoming=False))
    # c did count it, and says so again too
    assert s.receive("c", "b1", "c1", THIRD) == []
    s.play(ev.EdgeBroken("d", "reset"))
    weight = (1 - THIRD) / 3
    effects = s.complete("c", "b2", "c2", weight)
    assert effects[-1] == ev.MixRound(2, (Edge("c", "b1", "c1", THIRD), Edge("c", "b2", "c2", weight)))


def test_a_promise_that_the_other_end_never_answered_is_void_with_the_next() -> None:
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1", degree=1), incoming=False))
    s.fetch("c", "c1")
    s.promise("c", "b1", "c1", 0.5)
    s.play(ev.EdgeBroken("c", "reset"))
    s.finish_round(1)
    s.publish(2)
    s.play(ev.OfferReceived("c", offer("c2", 2, degree=1), incoming=False))
    effects = s.complete("c", "b2", "c2", 0.25)
    assert effects[-1] == ev.MixRound(2, (Edge("c", "b2", "c2", 0.25),))
    assert s.receive("c", "b1", "c1", 0.5) == []
    assert not {"b1", "c1"} & s.node.needed()


def test_what_cannot_be_mixed_is_refused_and_the_next_edge_waits() -> None:
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1", degree=1), incoming=False))
    s.play(ev.SnapshotReceived("c", "c1"))
    effects = s.play(ev.SnapshotInspected("c", "c1", False, float("nan")))
    assert effects == [
        ev.RefuseEdge(
            "c",
            "mesh.not-finite",
            "The snapshot cannot be mixed here: it holds numbers that are not finite; try again later.",
        ),
        ev.MixRound(1, ()),
    ]
    [peer] = s.node.view(s.now).peers
    assert "not finite" in peer.problem
    [refusal] = s.play(ev.OfferReceived("c", offer("c2"), incoming=True))
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.backing-off"
    s.play(after=POLICY.redial_backoff)
    s.finish_round(1)
    s.publish(2)
    s.play(ev.OfferReceived("c", offer("c3", 3, degree=1), incoming=True))
    s.complete("c", "b2", "c3", 0.5)
    assert s.node.view(s.now).peers[0].problem == ""


def test_a_peer_with_another_model_is_a_member_and_no_neighbour() -> None:
    s = Script().start()
    s.play(ev.PeerAnswered("c", "C", "07" * 32, 3))
    assert s.play(ev.RoundTrained(snapshot("b1"))) == [ev.MixRound(1, ())]
    [peer] = s.node.view(s.now).peers
    assert (peer.state, peer.neighbour) == ("alive", False)
    assert "another base model or adapter (schema 07070707)" in peer.problem


def test_a_peer_whose_trainer_is_loading_is_waited_for() -> None:
    s = Script().start()
    s.play(ev.PeerAnswered("c", "C", "", 0))
    assert s.play(ev.RoundTrained(snapshot("b1"))) == [ev.OpenEdge("c", ours("b1", 1, 1))]


def test_the_algorithm_local_exchanges_nothing() -> None:
    s = Script(replace(POLICY, exchange=False)).start("a", "c")
    [refusal] = s.play(ev.OfferReceived("a", offer("a1"), incoming=True))
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.no-exchange"
    assert s.publish(1) == [ev.MixRound(1, ())]


def test_a_peer_that_declines_is_no_neighbour_for_a_while() -> None:
    s = Script().start("a", "c")
    s.publish(1)
    s.play(
        ev.EdgeRefused("c", "mesh.done", "This node has trained all its rounds."), ev.EdgeRefused("a", "mesh.x", ".")
    )
    s.finish_round(1)
    assert s.publish(2) == []
    assert s.node.view(s.now).degree == 1
    s.play(ev.OfferReceived("c", offer("c9", 9), incoming=True))  # it has changed its mind
    assert [peer.peer for peer in s.node.view(s.now).peers if peer.neighbour] == ["a", "c"]


def test_the_last_round_rests_the_trainer_mixes_what_is_promised_and_ends() -> None:
    s = Script(limited(1)).start("c", "d")
    assert s.publish(1)[0] == ev.PauseTraining()
    s.play(ev.OfferReceived("c", offer("c1"), incoming=False))
    s.fetch("c", "c1")
    s.promise("c", "b1", "c1", THIRD)
    # d's deadline passes, and c's; but c may count its edge already, and there is no later mix
    published = s.now
    s.now += POLICY.wait_ceiling - 1.0
    assert s.play(ev.Tick()) == []
    effects = s.receive("c", "b1", "c1", THIRD)
    assert effects[0] == ev.CloseEdge("c")
    assert isinstance(effects[1], ev.RefuseEdge)
    assert (effects[1].peer, effects[1].reason) == ("d", "mesh.done")
    assert effects[2:] == [ev.MixRound(1, (Edge("c", "b1", "c1", THIRD),))]
    assert s.now < published + POLICY.wait_ceiling
    s.finish_round(1)
    assert s.phase == "done"
    # newcomers are served on
    answer = s.play(ev.OfferReceived("e", Offer(SCHEMA, None, 0, 0, 0, adopt=True), incoming=True))
    assert answer == [ev.AnswerEdge("e", ours("b1", 1, 2, mixes=1))]


def test_the_last_round_is_saved_again_until_it_is() -> None:
    s = Script(limited(1)).start()
    s.publish(1)
    s.play(ev.RoundMixed(1))
    [warning] = s.play(ev.SaveFailed(1, "no space left on the disk"))
    assert isinstance(warning, ev.Warn)
    assert s.phase == "done"
    assert s.wait() == [ev.SaveRound(1, 0)]
    assert s.play(ev.RoundSaved(1)) == []
    assert s.phase == "done"


def test_a_round_trained_while_the_last_is_saved_is_published_after_it() -> None:
    s = Script().start()
    s.publish(1)
    s.play(ev.RoundMixed(1))
    assert s.play(ev.RoundTrained(snapshot("b2", 2))) == []
    assert s.play(ev.RoundSaved(1)) == [ev.MixRound(2, ())]


def test_saves_come_at_most_every_so_often() -> None:
    s = Script(replace(POLICY, save_every=25.0)).start()
    saved = []
    for round in range(1, 9):
        s.publish(round)
        effects = s.play(ev.RoundMixed(round))
        if effects:
            saved.append(round)
            s.play(ev.RoundSaved(round))
    assert saved == [1, 4, 7]  # publishing takes 10 s


def test_a_failed_save_is_said_and_tried_after_the_next_round() -> None:
    s = Script(replace(POLICY, save_every=0.0)).start()
    s.publish(1)
    s.play(ev.RoundMixed(1))
    assert s.play(ev.SaveFailed(1, "no space left on the disk.")) == [
        ev.Warn(
            "mesh.save-failed",
            "Round 1 could not be saved: no space left on the disk; it is tried again later.",
        )
    ]
    assert s.phase == "training"
    s.publish(2)
    assert s.play(ev.RoundMixed(2)) == [ev.SaveRound(2, 0)]


def mix_with_c(s: Script, round: int) -> list[ev.Effect]:
    """A whole round with ``c``, saving failing; returns what its mix led to."""
    s.publish(round)
    s.play(ev.OfferReceived("c", offer(f"c{round}", round, degree=1, mixes=round), incoming=False))
    s.fetch("c", f"c{round}")
    s.promise("c", f"b{round}", f"c{round}", 0.5)
    s.receive("c", f"b{round}", f"c{round}", 0.5)
    effects = s.play(ev.RoundMixed(round))
    s.play(ev.SaveFailed(round, "no space"))
    return effects


def test_unsaved_receipts_force_a_save_and_then_end_the_exchange() -> None:
    s = Script(replace(POLICY, save_every=1e9, unsaved_receipts=2)).start("c")
    s.publish(0)
    s.play(ev.EdgeBroken("c", "cut"))
    s.finish_round(1)
    assert mix_with_c(s, 2) == []
    [save] = mix_with_c(s, 3)
    assert isinstance(save, ev.SaveRound)
    assert [edge.own for edge in save.covers] == ["b2", "b3"]
    mix_with_c(s, 4)
    mix_with_c(s, 5)
    assert s.publish(6) == [ev.MixRound(6, ())]  # four are unsaved: no edge before a save has worked
    [again, refusal] = s.play(ev.OfferReceived("c", offer("c6", 6), incoming=True))
    assert isinstance(again, ev.SendReceipt)  # what was promised before still counts
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.cannot-save"
    [save] = s.play(ev.RoundMixed(6))
    assert s.play(ev.RoundSaved(6)) == []
    assert isinstance(save, ev.SaveRound)
    assert len(save.covers) == 4
    assert s.publish(7) == [ev.OpenEdge("c", ours("b7", 7, 1, mixes=4), again=(Receipt("b5", "c5", 0.5),))]


def test_snapshots_that_fill_half_the_spool_force_a_save() -> None:
    s = Script(replace(POLICY, save_every=1e9, unsaved_bytes=4000)).start("c")  # each has 1000 bytes
    s.publish(0)
    s.play(ev.EdgeBroken("c", "cut"))
    s.finish_round(1)
    assert mix_with_c(s, 2) == []
    [save] = mix_with_c(s, 3)
    assert isinstance(save, ev.SaveRound)
    assert [edge.own for edge in save.covers] == ["b2", "b3"]


def test_snapshots_that_a_save_would_not_free_force_none() -> None:
    s = Script(replace(POLICY, save_every=1e9, unsaved_bytes=2000)).start("c")
    s.publish(0)
    s.play(ev.EdgeBroken("c", "cut"))
    s.finish_round(1)
    s.publish(2)
    s.play(ev.OfferReceived("c", offer("c2", 2), incoming=False))
    s.fetch("c", "c2")
    s.promise("c", "b2", "c2", 0.5)  # and c never answers
    assert s.wait_for_mix() == [ev.MixRound(2, ())]
    assert s.play(ev.RoundMixed(2)) == []


def test_the_machine_takes_any_seed_and_no_time_runs_back() -> None:
    s = Script(Policy()).start()
    s.play(after=5.0)
    s.play(ev.Tick())
    s.now -= 1.0
    with pytest.raises(AssertionError, match="backwards"):
        s.play(ev.Tick())
