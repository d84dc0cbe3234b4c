"""Transcripts of crashes and restarts: what was promised is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Edge, Receipt, Saved
from tests.mesh.script import POLICY, SCHEMA, Script, limited, offer, snapshot

LATE = Edge("c", "b5", "c7", 0.5)


def with_late(s: Script, round: int) -> Script:
    """A round with ``c`` up to the mix."""
    s.publish(round)
    name = f"c{round}"
    s.play(ev.OfferReceived("c", offer(name, round, degree=1, mixes=1), incoming=False))
    s.complete("c", f"b{round}", name, 0.5)
    return s


def test_edges_that_the_saved_state_does_not_hold_are_mixed_again() -> None:
    saved = Saved(4, 3, SCHEMA, snapshot("s4", 4), unsaved=(LATE,))
    s = Script(saved=saved)
    assert {"b5", "c7"} <= s.node.needed()
    assert s.play(ev.TrainerStarted(SCHEMA, 8)) == [ev.StartTraining(5, resume=True)]
    assert s.publish(5) == [ev.MixRound(5, (LATE,))]
    assert s.play(ev.RoundMixed(5)) == [ev.SaveRound(5, 4, covers=(LATE,), unheard=(LATE,))]
    s.play(ev.RoundSaved(5))
    assert "c7" not in s.node.needed()


def test_a_pair_used_in_an_earlier_life_is_not_used_again() -> None:
    """A trainer that repeats its steps exactly publishes the same snapshot again; its peers are not waited for."""
    s = Script(saved=Saved(4, 3, SCHEMA, snapshot("s4", 4), unsaved=(LATE,))).start("c")
    assert s.publish(5) == [ev.MixRound(5, (LATE,))]
    again = ev.SendReceipt("c", Receipt("b5", "c7", 0.5))
    assert s.play(ev.OfferReceived("c", offer("c8", 8, mixes=5), incoming=True)) == [again]  # and held


def test_a_promise_of_an_earlier_life_with_the_same_snapshot_is_waited_for() -> None:
    promise = Edge("c", "b6", "c7", 1 / 3)
    s = Script(saved=Saved(5, 3, SCHEMA, snapshot("s5", 5), promised=(promise,))).start("c")
    assert not any(isinstance(effect, ev.MixRound) for effect in s.publish(6))
    assert s.receive("c", "b6", "c7", 1 / 3)[-1] == ev.MixRound(6, (promise,))


def test_a_promise_of_an_earlier_life_is_said_again_and_may_still_count() -> None:
    promise = Edge("c", "b5", "c7", 1 / 3)
    s = Script(saved=Saved(5, 3, SCHEMA, snapshot("s5", 5), promised=(promise,))).start("c")
    said = [effect.again for effect in s.publish(6) if isinstance(effect, ev.OpenEdge)]
    assert said == [(Receipt("b5", "c7", 1 / 3),)]
    s.play(ev.OfferReceived("c", offer("c8", 8, degree=1, mixes=5), incoming=False))
    s.receive("c", "b5", "c7", 1 / 2)
    weight = (1 - 1 / 3) / 2
    effects = s.complete("c", "b6", "c8", weight)
    assert effects[-1] == ev.MixRound(6, (promise, Edge("c", "b6", "c8", weight)))


def test_what_was_mixed_and_perhaps_not_heard_is_said_again_after_a_restart() -> None:
    heard, unheard = Receipt("b4", "c6", 0.5), Receipt("b5", "c7", 0.5)
    edges = tuple(Edge("c", one.own, one.theirs, one.weight) for one in (heard, unheard))
    s = Script(saved=Saved(5, 3, SCHEMA, snapshot("s5", 5), unheard=edges)).start("c", "d")
    opened = {effect.peer: effect.again for effect in s.publish(6) if isinstance(effect, ev.OpenEdge)}
    assert opened == {"c": (heard, unheard), "d": ()}
    assert s.node.edges.ledger.size == 0  # nothing of it is to be mixed
    s.play(ev.OfferReceived("c", offer("c8", 8, degree=2, mixes=5), incoming=False))
    s.play(ev.EdgeBroken("c", "cut"))
    first = s.play(ev.OfferReceived("c", offer("c8", 8, degree=2, mixes=5), incoming=True))[0]
    assert isinstance(first, ev.AnswerEdge)  # it has answered, and so has heard


def test_a_trainer_lost_in_training_begins_the_round_again() -> None:
    s = with_late(Script().start("c"), 1)
    s.finish_round(1)
    assert s.play(ev.TrainerLost("killed by signal 9")) == []
    assert s.phase == "starting"
    assert s.play(ev.TrainerStarted(SCHEMA, 8)) == [ev.StartTraining(2, resume=True)]


def test_a_trainer_lost_before_the_first_save_begins_afresh() -> None:
    s = Script().start("c")
    s.play(ev.TrainerLost("killed"))
    assert s.play(ev.TrainerStarted(SCHEMA, 8)) == [ev.StartTraining(1, resume=False)]


def test_a_trainer_lost_in_the_exchange_loses_no_promise() -> None:
    s = Script().start("c", "d")
    s.publish(1)
    for peer in ("c", "d"):
        s.play(ev.OfferReceived(peer, offer(f"{peer}1"), incoming=False))
    s.fetch("c", "c1")
    s.promise("c", "b1", "c1", 1 / 3)
    s.play(ev.SnapshotReceived("d", "d1"))
    s.play(ev.TrainerLost("out of memory"))
    assert s.receive("c", "b1", "c1", 1 / 3) == [ev.CloseEdge("c")]
    again = ev.SendReceipt("c", Receipt("b1", "c1", 1 / 3))
    assert s.play(ev.OfferReceived("c", offer("c2", 2), incoming=True)) == [again]  # held: b1 shows a lost state
    # the new trainer is asked again what the old one did not answer
    assert s.play(ev.TrainerStarted(SCHEMA, 8)) == [
        ev.StartTraining(1, resume=False),
        ev.InspectSnapshot("d", "d1", "b1"),
    ]
    s.play(ev.SnapshotInspected("d", "d1", True, 1.0))
    s.promise("d", "b1", "d1", 1 / 3)
    s.receive("d", "b1", "d1", 1 / 3)
    s.play(ev.EdgeBroken("c", "cut"))
    s.play(ev.PeerLeft("c"), ev.PeerLeft("d"))
    s.now += 10.0
    edges = (Edge("c", "b1", "c1", 1 / 3), Edge("d", "b1", "d1", 1 / 3))
    assert s.play(ev.RoundTrained(snapshot("b1x"))) == [ev.MixRound(1, edges)]


@pytest.mark.parametrize("when", ["mixing", "training"])
def test_a_trainer_lost_after_the_mix_mixes_again_all_since_the_last_save(when: str) -> None:
    s = with_late(Script(replace(POLICY, save_every=1e9)).start("c"), 1)
    s.finish_round(1)
    first = Edge("c", "b1", "c1", 0.5)
    with_late(s, 2)
    second = Edge("c", "b2", "c2", 0.5)
    if when == "training":
        s.play(ev.RoundMixed(2))
    s.play(ev.TrainerLost("killed"))
    [start] = s.play(ev.TrainerStarted(SCHEMA, 8))
    assert start == ev.StartTraining(2 if when == "mixing" else 3, resume=True)
    s.play(ev.PeerLeft("c"))
    s.now += 10.0
    [mix] = s.play(ev.RoundTrained(snapshot("b3", 3)))
    assert isinstance(mix, ev.MixRound)
    assert mix.edges == (second,)  # the first is in the saved state
    assert first.own not in s.node.needed()


def test_a_save_that_ends_after_the_trainer_is_lost_counts() -> None:
    s = with_late(Script().start("c"), 1)
    s.play(ev.RoundMixed(1), ev.TrainerLost("killed"), ev.RoundSaved(1))
    assert s.play(ev.TrainerStarted(SCHEMA, 8)) == [ev.StartTraining(2, resume=True)]
    s.play(ev.PeerLeft("c"))
    s.now += 10.0
    assert s.play(ev.RoundTrained(snapshot("b2", 2))) == [ev.MixRound(2, ())]


def test_a_trainer_of_another_schema_is_not_started() -> None:
    s = Script(saved=Saved(4, 3, "07" * 32, snapshot("s4", 4)))
    [warning] = s.play(ev.TrainerStarted(SCHEMA, 8))
    assert isinstance(warning, ev.Warn)
    assert warning.reason == "mesh.other-schema"
    assert s.phase == "starting"


def test_a_node_that_had_done_all_its_rounds_is_done() -> None:
    s = Script(limited(4), saved=Saved(4, 3, SCHEMA, snapshot("s4", 4)))
    s.play(ev.OfferReceived("c", offer("c1"), incoming=True))
    [refusal] = s.play(ev.TrainerStarted(SCHEMA, 8))
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.done"
    assert s.phase == "done"
