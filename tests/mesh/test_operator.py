"""Transcripts of pause, resume and stop, from wherever the node stands."""

from __future__ import annotations

import pytest

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Edge
from tests.mesh.script import Script, offer
from tests.mesh.test_every_pair import PHASES


def test_pause_and_resume_in_training() -> None:
    s = Script().start("a", "c")
    assert s.play(ev.PauseRequested()) == [ev.PauseTraining()]
    assert s.phase == "paused"
    assert s.play(ev.PauseRequested()) == []
    [refusal] = s.play(ev.OfferReceived("a", offer("a1"), incoming=True))
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.paused"
    assert s.play(ev.ResumeRequested()) == [ev.ResumeTraining()]
    assert s.phase == "training"
    assert s.play(ev.ResumeRequested()) == []


def test_a_pause_in_the_exchange_keeps_what_is_promised_and_refuses_the_rest() -> None:
    s = Script().start("c", "d")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1"), incoming=False))
    s.fetch("c", "c1")
    s.promise("c", "b1", "c1", 1 / 3)
    refusal, pause = s.play(ev.PauseRequested())
    assert isinstance(refusal, ev.RefuseEdge)
    assert (refusal.peer, refusal.reason) == ("d", "mesh.paused")
    assert pause == ev.PauseTraining()
    edges = (Edge("c", "b1", "c1", 1 / 3),)
    assert s.receive("c", "b1", "c1", 1 / 3) == [ev.CloseEdge("c"), ev.MixRound(1, edges)]
    s.finish_round(1)
    assert s.phase == "paused"
    assert s.play(ev.ResumeRequested()) == [ev.ResumeTraining()]
    assert s.phase == "training"


def test_a_pause_before_the_trainer_is_there_holds_it_back() -> None:
    s = Script().meet("c")
    assert s.play(ev.PauseRequested()) == []
    s.start()
    assert s.phase == "paused"
    assert s.play(ev.ResumeRequested()) == [ev.ResumeTraining()]


def test_a_stop_in_training_saves_what_there_is() -> None:
    s = Script().start("c")
    s.play(ev.OfferReceived("c", offer("c1"), incoming=True))
    refusal, save = s.play(ev.StopRequested())
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.stopping"
    assert save == ev.SaveRound(0, 0)
    assert s.play(ev.RoundSaved(0)) == [ev.StopTraining()]
    assert s.phase == "stopped"
    assert s.node.deadline() is None


def test_a_stop_in_the_exchange_mixes_what_is_complete_and_saves() -> None:
    s = Script().start("c", "d", "e")
    s.publish(1)
    for peer in ("c", "d"):
        s.play(ev.OfferReceived(peer, offer(f"{peer}1"), incoming=False))
        s.fetch(peer, f"{peer}1")
        s.promise(peer, "b1", f"{peer}1", 0.25)
    s.receive("c", "b1", "c1", 0.25)
    refusal, mix = s.play(ev.StopRequested())
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.peer == "e"
    assert mix == ev.MixRound(1, (Edge("c", "b1", "c1", 0.25),))
    # d may still answer: its receipt is kept for the next start, so it is not covered by this save
    s.receive("d", "b1", "d1", 0.25)
    c, d = Edge("c", "b1", "c1", 0.25), Edge("d", "b1", "d1", 0.25)
    assert s.play(ev.RoundMixed(1)) == [ev.SaveRound(1, 1, covers=(c,), unheard=(c, d))]
    assert s.play(ev.RoundSaved(1)) == [ev.StopTraining()]


def test_a_stop_does_not_wait_for_a_disk_that_is_full() -> None:
    s = Script().start()
    s.play(ev.StopRequested())
    warning, stop = s.play(ev.SaveFailed(0, "no space left on the disk"))
    assert isinstance(warning, ev.Warn)
    assert stop == ev.StopTraining()


@pytest.mark.parametrize("phase", PHASES)
def test_a_stop_from_anywhere_ends_and_a_second_one_changes_nothing(phase: str) -> None:
    s = PHASES[phase]()
    s.play(ev.StopRequested())
    assert s.play(ev.StopRequested()) == []
    round = s.node.phase.round
    s.play(ev.RoundMixed(round), ev.RoundSaved(round))  # what is not awaited changes nothing
    assert s.phase == "stopped"
    assert s.play(ev.TrainerLost("exit 0")) == []
