"""Transcripts of adoption: who adopts, whom it asks, and what the others do."""

from __future__ import annotations

from dataclasses import replace

from decaf_node.mesh import events as ev
from decaf_node.mesh.adoption import ALONE_ROUNDS
from decaf_node.mesh.events import Edge, Offer, Saved
from tests.mesh.script import POLICY, SCHEMA, Script, offer, snapshot

ASKING = Offer(SCHEMA, None, 1, 0, 0, adopt=True)


def member(name: str, round: int, mixes: int = 30) -> Offer:
    return offer(name, round, degree=3, mixes=mixes)


def test_a_newcomer_adopts_the_medoid_of_several_members_and_mixes_from_then_on() -> None:
    s = Script().start("a", "c", "d")
    s.publish(1)
    # a answers with a mesh that is far ahead: ask it on this stream, and the others on streams of their own
    assert s.play(ev.OfferReceived("a", member("a40", 40), incoming=True)) == [
        ev.RefuseEdge(
            "c", "mesh.adopting", "This node is new and takes over the state of the mesh first; try again next round."
        ),
        ev.RefuseEdge(
            "d", "mesh.adopting", "This node is new and takes over the state of the mesh first; try again next round."
        ),
        ev.OpenEdge("c", ASKING),
        ev.OpenEdge("d", ASKING),
        ev.AnswerEdge("a", ASKING),
        ev.FetchSnapshot("a", snapshot("a40", 40)),
    ]
    assert s.phase == "adopting"
    assert s.play(ev.OfferReceived("c", member("c42", 42), incoming=False)) == [
        ev.FetchSnapshot("c", snapshot("c42", 42))
    ]
    assert s.play(ev.EdgeBroken("d", "reset")) == []
    assert s.play(ev.SnapshotReceived("a", "a40")) == [ev.InspectSnapshot("a", "a40", "b1")]
    assert s.play(ev.SnapshotReceived("c", "c42")) == [ev.InspectSnapshot("c", "c42", "b1")]
    assert s.play(ev.SnapshotInspected("c", "c42", True, 3.0)) == [ev.CloseEdge("c")]
    assert s.play(ev.SnapshotInspected("a", "a40", True, 3.0)) == [
        ev.CloseEdge("a"),
        ev.AdoptState(("a40", "c42"), base=None),
    ]
    assert {"a40", "c42"} <= s.node.needed()
    assert s.play(ev.StateAdopted("c42")) == [ev.MixRound(42, ())]
    assert s.play(ev.RoundMixed(42)) == [ev.SaveRound(42, 1)]
    s.play(ev.RoundSaved(42))
    assert s.node.phase.round == 43
    [open_c, *_] = s.publish(43)
    assert open_c == ev.OpenEdge("c", Offer(SCHEMA, snapshot("b43", 43), 43, 3, 1))


def test_founders_just_mix() -> None:
    s = Script().start("c")
    s.publish(1)
    assert s.play(ev.OfferReceived("c", offer("c9", 9, mixes=0), incoming=False)) == [
        ev.FetchSnapshot("c", snapshot("c9", 9))
    ]


def alone_for_long() -> Script:
    return Script(saved=Saved(ALONE_ROUNDS, 0, SCHEMA, snapshot("s", ALONE_ROUNDS))).start("c")


def test_a_newcomer_adopts_from_who_has_trained_alone_for_long() -> None:
    s = alone_for_long()
    ours = Offer(SCHEMA, snapshot("b11", 11), 11, 1, 1)
    assert s.publish(11) == [ev.OpenEdge("c", ours)]
    assert s.play(ev.OfferReceived("c", ASKING, incoming=False)) == [ev.MixRound(11, ())]  # it serves c meanwhile
    s = Script().start("a")
    s.publish(1)
    assert s.play(ev.OfferReceived("a", replace(ours, snapshot=snapshot("a11", 11)), incoming=True))[
        0
    ] == ev.AnswerEdge("a", ASKING)


def test_who_has_trained_alone_for_long_mixes_with_a_mesh_and_with_its_like() -> None:
    for mixes in (1, 30):
        s = alone_for_long()
        s.publish(11)
        s.play(ev.OfferReceived("c", member("c90", 90, mixes), incoming=False))
        assert s.complete("c", "b11", "c90", 0.25)[-1] == ev.MixRound(11, (Edge("c", "b11", "c90", 0.25),))


def test_a_slow_node_and_one_that_has_mixed_before_just_mix() -> None:
    s = Script(saved=Saved(3, 2, SCHEMA, snapshot("s3", 3))).start("c")
    s.publish(4)
    assert s.play(ev.OfferReceived("c", member("c90", 90), incoming=False)) == [
        ev.FetchSnapshot("c", snapshot("c90", 90))
    ]


def test_an_offer_held_while_a_newcomer_trains_starts_adoption_at_its_publishing() -> None:
    s = Script().start("a")
    assert s.play(ev.OfferReceived("a", member("a40", 40), incoming=True)) == []
    assert s.publish(1) == [ev.AnswerEdge("a", ASKING), ev.FetchSnapshot("a", snapshot("a40", 40))]
    assert s.phase == "adopting"


def test_who_was_absent_for_too_long_adopts_and_keeps_what_it_has_trained_since() -> None:
    saved = Saved(50, 49, SCHEMA, snapshot("s50", 50), absent=8 * 86400.0)
    s = Script(saved=saved).start("c")
    assert s.publish(51) == [ev.OpenEdge("c", Offer(SCHEMA, snapshot("b51", 51), 51, 1, 0))]
    s.play(ev.OfferReceived("c", member("c40", 40), incoming=False))
    assert s.phase == "adopting"
    s.play(ev.SnapshotReceived("c", "c40"))
    assert s.play(ev.SnapshotInspected("c", "c40", True, 3.0))[-1] == ev.AdoptState(("c40",), base="s50")
    assert "s50" in s.node.needed()
    assert s.play(ev.StateAdopted("c40")) == [ev.MixRound(51, ())]  # a round number never goes back
    assert s.play(ev.RoundMixed(51)) == [ev.SaveRound(51, 49)]


def test_a_mesh_that_was_switched_off_for_long_founds_itself_again() -> None:
    saved = Saved(50, 49, SCHEMA, snapshot("s50", 50), absent=8 * 86400.0)
    s = Script(saved=saved).start("c")
    s.publish(51)
    assert s.play(ev.OfferReceived("c", offer("c60", 60, mixes=0), incoming=False)) == [
        ev.FetchSnapshot("c", snapshot("c60", 60))
    ]


def test_with_nobody_to_adopt_from_it_goes_on_and_tries_again() -> None:
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", member("c40", 40), incoming=False))
    assert s.play(ev.EdgeBroken("c", "reset")) == [ev.MixRound(1, ())]
    s.finish_round(1)
    assert s.phase == "training"
    s.publish(2)
    assert s.play(ev.OfferReceived("c", member("c41", 41), incoming=False)) == [
        ev.FetchSnapshot("c", snapshot("c41", 41))
    ]
    assert s.phase == "adopting"


def test_a_damaged_candidate_is_refused_and_those_that_never_answer_are_not_waited_for() -> None:
    s = Script().start("a", "c", "d")
    s.publish(1)
    s.play(ev.OfferReceived("c", member("c40", 40), incoming=False))
    s.play(ev.OfferReceived("d", member("d40", 40), incoming=False))
    [refusal] = s.play(ev.SnapshotRefused("d", "d40", "it is truncated"))
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.bad-snapshot"
    s.play(ev.SnapshotReceived("c", "c40"), ev.SnapshotInspected("c", "c40", True, 3.0))
    began = s.now
    assert s.wait() == [ev.CloseEdge("a"), ev.AdoptState(("c40",), None)]
    assert s.now - began == POLICY.wait_ceiling


def test_a_slow_fetch_is_waited_for_longer_while_there_is_nothing_else() -> None:
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", member("c40", 40), incoming=False))
    s.play(after=3 * POLICY.wait_ceiling)
    assert s.phase == "adopting"
    s.play(ev.SnapshotReceived("c", "c40"))
    assert s.play(ev.SnapshotInspected("c", "c40", True, 3.0)) == [ev.CloseEdge("c"), ev.AdoptState(("c40",), None)]


def test_no_more_members_are_asked_than_the_policy_says() -> None:
    peers = [f"p{number}" for number in range(20)]
    s = Script(replace(POLICY, adopt_from=3)).start(*peers)
    s.publish(1)
    effects = s.play(ev.OfferReceived("p7", member("p40", 40), incoming=False))
    assert len([effect for effect in effects if isinstance(effect, ev.OpenEdge)]) == 2


def test_other_newcomers_are_not_asked() -> None:
    s = Script().start("c", "d")
    s.publish(1)
    s.play(ev.OfferReceived("d", offer("d1", mixes=0), incoming=False))
    effects = s.play(ev.OfferReceived("c", member("c40", 40), incoming=False))
    assert not [effect for effect in effects if isinstance(effect, ev.OpenEdge)]


def test_an_edge_promised_before_the_meeting_is_kept_and_mixed_after_the_adoption() -> None:
    s = Script().start("c", "d")
    s.publish(1)
    s.play(ev.OfferReceived("d", offer("d1", mixes=0), incoming=False))
    s.fetch("d", "d1")
    s.promise("d", "b1", "d1", 1 / 3)
    s.play(ev.OfferReceived("c", member("c40", 40), incoming=False))
    s.receive("d", "b1", "d1", 1 / 3)
    s.play(ev.SnapshotReceived("c", "c40"), ev.SnapshotInspected("c", "c40", True, 3.0))
    assert s.play(ev.StateAdopted("c40")) == [ev.MixRound(40, (Edge("d", "b1", "d1", 1 / 3),))]


# --- the other side --------------------------------------------------------------------------------------------------


def settled() -> Script:
    """A member of a mesh under way, in training, with snapshot ``b9`` published."""
    s = Script(saved=Saved(8, 8, SCHEMA, snapshot("s8", 8))).start("c")
    s.publish(9)
    s.play(ev.EdgeBroken("c", "cut"))
    s.finish_round(9)
    return s


def test_a_member_shows_its_state_to_a_newcomer_without_counting_an_edge() -> None:
    s = settled()
    ours = Offer(SCHEMA, snapshot("b9", 9), 9, 1, 8)
    # its ordinary offer shows it to be new: answer at once, fetch nothing
    assert s.play(ev.OfferReceived("n", offer("n1", 1, mixes=0), incoming=True)) == [ev.AnswerEdge("n", ours)]
    # it asks, on a stream of its own or on the same
    assert s.play(ev.OfferReceived("n", ASKING, incoming=True)) == [ev.AnswerEdge("n", ours)]
    assert "b9" in s.node.needed()
    s.publish(10)
    assert {"b9", "b10"} <= s.node.needed()  # it is still fetching
    s.play(ev.EdgeBroken("n", "it ended the stream"))
    assert "b9" not in s.node.needed()


def test_a_member_that_called_a_newcomer_lets_it_adopt() -> None:
    s = settled()
    s.publish(10)
    assert s.play(ev.OfferReceived("c", ASKING, incoming=False)) == [ev.MixRound(10, ())]


def test_a_member_that_has_published_nothing_yet_refuses() -> None:
    s = Script(saved=Saved(8, 8, SCHEMA, snapshot("s8", 8))).start("c")
    [refusal] = s.play(ev.OfferReceived("c", ASKING, incoming=True))
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.no-snapshot"
