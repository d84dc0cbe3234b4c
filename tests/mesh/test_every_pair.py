"""Every phase with every event, and every stage of a stream with everything that can happen on one.

What is not in a table changes nothing: no effect, the same phase, the same bytes kept, no other deadline than probes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Effect, Event, Receipt
from decaf_node.mesh.phases import Paused
from decaf_node.mesh.rumours import News, Rumour, Standing
from tests.mesh.script import SCHEMA, Script, limited, offer, snapshot


def starting() -> Script:
    return Script().meet("a", "c")


def training() -> Script:
    return Script().start("a", "c")


def exchanging() -> Script:
    """``c`` is being called, ``a`` should call."""
    script = training()
    script.publish()
    return script


def mixing() -> Script:
    script = exchanging()
    script.play(ev.EdgeBroken("c", "cut"), ev.PeerLeft("a"))
    return script


def saving() -> Script:
    script = mixing()
    script.play(ev.RoundMixed(1))
    return script


def asking() -> Script:
    """A newcomer fetches from ``c`` and has called ``a``."""
    script = exchanging()
    script.play(ev.OfferReceived("c", offer("c40", 40, mixes=5), incoming=False))
    return script


def adopting() -> Script:
    """The trainer is taking ``c``'s state."""
    script = asking()
    script.play(ev.PeerSilent("a", "cut"), ev.SnapshotReceived("c", "c40"))
    script.play(ev.SnapshotInspected("c", "c40", True, 1.0))
    return script


def done() -> Script:
    script = Script(limited(1)).start("a", "c")
    script.publish()
    script.play(ev.EdgeBroken("c", "cut"), ev.PeerLeft("a"), ev.RoundMixed(1), ev.RoundSaved(1))
    return script


def done_unsaved() -> Script:
    script = Script(limited(1)).start("a", "c")
    script.publish()
    script.play(ev.EdgeBroken("c", "cut"), ev.PeerLeft("a"), ev.RoundMixed(1), ev.SaveFailed(1, "no space"))
    return script


def stopping_mix() -> Script:
    script = exchanging()
    script.play(ev.StopRequested())
    return script


def stopping_save() -> Script:
    script = stopping_mix()
    script.play(ev.RoundMixed(1))
    return script


def stopped() -> Script:
    script = stopping_save()
    script.play(ev.RoundSaved(1))
    return script


RUNNING = (starting, training, exchanging, mixing, saving, asking, adopting, done, done_unsaved)
PHASES: dict[str, Callable[[], Script]] = {
    make.__name__: make for make in (*RUNNING, stopping_mix, stopping_save, stopped)
}


def paused(make: Callable[[], Script]) -> Callable[[], Script]:
    def make_paused() -> Script:
        script = make()
        script.play(ev.PauseRequested())
        return script

    return make_paused


PHASES |= {f"paused {make.__name__}": paused(make) for make in RUNNING}

NEWS = News(rumours=(Rumour("d", Standing.HERE, 0, "D", SCHEMA, ("d:1",)), Rumour("a", Standing.LOST, 3)))
EVENTS: dict[str, Event] = {
    "TrainerStarted": ev.TrainerStarted(SCHEMA, 8),
    "TrainerLost": ev.TrainerLost("killed"),
    "RoundTrained": ev.RoundTrained(snapshot("b2", 2)),
    "SnapshotInspected": ev.SnapshotInspected("c", "c1", True, 1.0),
    "RoundMixed": ev.RoundMixed(1),
    "RoundMixed of another": ev.RoundMixed(7),
    "RoundSaved": ev.RoundSaved(1),
    "RoundSaved of another": ev.RoundSaved(7),
    "SaveFailed": ev.SaveFailed(1, "no space"),
    "StateAdopted": ev.StateAdopted("c40"),
    "PeerFound": ev.PeerFound("c", ("c:1",)),
    "PeerAnswered": ev.PeerAnswered("c", "C", SCHEMA, 1),
    "HelloReceived": ev.HelloReceived("c", "C", SCHEMA, 1, ("c:1",), NEWS),
    "PeerSilent": ev.PeerSilent("c", "no answer"),
    "PeerLeft": ev.PeerLeft("c"),
    "OfferReceived": ev.OfferReceived("c", offer("c1"), incoming=True),
    "OfferReceived, ours": ev.OfferReceived("c", offer("c1"), incoming=False),
    "SnapshotReceived": ev.SnapshotReceived("c", "c1"),
    "SnapshotRefused": ev.SnapshotRefused("c", "c1", "it is torn"),
    "ReceiptSaved": ev.ReceiptSaved("c", Receipt("b1", "c1", 0.3)),
    "ReceiptReceived": ev.ReceiptReceived("c", Receipt("c1", "b1", 0.3)),
    "EdgeRefused": ev.EdgeRefused("c", "mesh.not-a-neighbour", "No."),
    "EdgeBroken": ev.EdgeBroken("c", "cut"),
    "PauseRequested": ev.PauseRequested(),
    "ResumeRequested": ev.ResumeRequested(),
    "MixRequested": ev.MixRequested(),
    "StopRequested": ev.StopRequested(),
    "Tick": ev.Tick(),
}


def short(effect: Effect) -> str:
    """Return an effect as the tables write it."""
    words = [type(effect).__name__]
    words += [str(getattr(effect, name)) for name in ("peer", "reason", "round") if getattr(effect, name, "")]
    return " ".join(words)


def where(script: Script) -> str:
    phase = script.node.phase
    if isinstance(phase, Paused):
        return f"paused {type(phase.inner).__name__} {phase.round}"
    return f"{type(phase).__name__} {phase.round}"


def outcome(script: Script, event: Event) -> tuple[str, ...]:
    """Return what the event led to: the phase, if it is another, then the effects."""
    before = where(script)
    effects = tuple(short(effect) for effect in script.play(event))
    return effects if where(script) == before else (f"=> {where(script)}", *effects)


TABLE: dict[str, dict[str, tuple[str, ...]]] = {
    "starting": {
        "TrainerStarted": ("=> Training 1", "StartTraining 1"),
        "PauseRequested": ("=> paused Starting 1",),
        "StopRequested": ("=> Stopped 1", "StopTraining"),
    },
    "training": {
        "TrainerStarted": ("StartTraining 1",),
        "TrainerLost": ("=> Starting 1",),
        "RoundTrained": ("=> Exchanging 2", "OpenEdge c"),
        "PauseRequested": ("=> paused Training 1", "PauseTraining"),
        "MixRequested": ("EndRound 1",),
        "StopRequested": ("=> Stopping 0", "SaveRound"),
    },
    "exchanging": {
        "TrainerStarted": ("=> Training 1", "StartTraining 1"),
        "TrainerLost": ("=> Starting 1",),
        "PeerSilent": ("CloseEdge c",),
        "PeerLeft": ("CloseEdge c",),
        "OfferReceived": ("AnswerEdge c", "FetchSnapshot c"),
        "OfferReceived, ours": ("FetchSnapshot c",),
        "PauseRequested": ("=> paused Mixing 1", "RefuseEdge c mesh.paused", "PauseTraining", "MixRound 1"),
        "StopRequested": ("=> Stopping 1", "RefuseEdge c mesh.stopping", "MixRound 1"),
    },
    "mixing": {
        "TrainerStarted": ("=> Training 1", "StartTraining 1"),
        "TrainerLost": ("=> Starting 1",),
        "RoundMixed": ("=> Saving 1", "SaveRound 1"),
        "OfferReceived": ("AnswerEdge c", "FetchSnapshot c"),
        "PauseRequested": ("=> paused Mixing 1", "PauseTraining"),
        "StopRequested": ("=> Stopping 1",),
    },
    "saving": {
        "TrainerStarted": ("=> Training 2", "StartTraining 2"),
        "TrainerLost": ("=> Starting 2",),
        "RoundSaved": ("=> Training 2",),
        "SaveFailed": ("=> Training 2", "Warn mesh.save-failed"),
        "OfferReceived": ("AnswerEdge c", "FetchSnapshot c"),
        "PauseRequested": ("=> paused Saving 1", "PauseTraining"),
        "MixRequested": ("EndRound 2",),
        "StopRequested": ("=> Stopping 1",),
    },
    "asking": {
        "TrainerStarted": ("=> Training 1", "CloseEdge a", "CloseEdge c", "StartTraining 1"),
        "TrainerLost": ("=> Starting 1", "CloseEdge a", "CloseEdge c"),
        "PeerLeft": ("CloseEdge c",),
        "OfferReceived": ("RefuseEdge c mesh.adopting",),
        "PauseRequested": ("=> paused Mixing 1", "CloseEdge a", "CloseEdge c", "PauseTraining", "MixRound 1"),
        "StopRequested": ("=> Stopping 1", "CloseEdge a", "CloseEdge c", "MixRound 1"),
    },
    "adopting": {
        "TrainerStarted": ("=> Training 1", "StartTraining 1"),
        "TrainerLost": ("=> Starting 1",),
        "StateAdopted": ("=> Mixing 40", "MixRound 40"),
        "OfferReceived": ("RefuseEdge c mesh.adopting",),
        "PauseRequested": ("=> paused Adopting 1", "PauseTraining"),
        "StopRequested": ("=> Stopping 1", "MixRound 1"),
    },
    "done": {
        "OfferReceived": ("RefuseEdge c mesh.done",),
        "PauseRequested": ("=> paused Done 1",),
        "StopRequested": ("=> Stopped 1", "StopTraining"),
    },
    "done_unsaved": {
        "TrainerStarted": ("=> Training 1", "StartTraining 1"),
        "TrainerLost": ("=> Starting 1",),
        "OfferReceived": ("RefuseEdge c mesh.done",),
        "PauseRequested": ("=> paused Done 1",),
        "StopRequested": ("=> Stopping 1", "SaveRound 1"),
    },
    "stopping_mix": {
        "TrainerStarted": ("=> Stopped 1", "StopTraining"),
        "TrainerLost": ("=> Stopped 1", "StopTraining"),
        "RoundMixed": ("SaveRound 1",),
        "OfferReceived": ("RefuseEdge c mesh.stopping",),
    },
    "stopping_save": {
        "TrainerStarted": ("=> Stopped 1", "StopTraining"),
        "TrainerLost": ("=> Stopped 1", "StopTraining"),
        "RoundSaved": ("=> Stopped 1", "StopTraining"),
        "SaveFailed": ("=> Stopped 1", "Warn mesh.save-failed", "StopTraining"),
        "OfferReceived": ("RefuseEdge c mesh.stopping",),
    },
    "stopped": {},
    "paused starting": {
        "TrainerStarted": ("=> paused Training 1", "StartTraining 1", "PauseTraining"),
        "OfferReceived": ("RefuseEdge c mesh.paused",),
        "ResumeRequested": ("=> Starting 1",),
        "StopRequested": ("=> Stopped 1", "StopTraining"),
    },
    "paused training": {
        "TrainerStarted": ("StartTraining 1", "PauseTraining"),
        "TrainerLost": ("=> paused Starting 1",),
        "RoundTrained": ("=> paused Mixing 2", "MixRound 2"),
        "OfferReceived": ("RefuseEdge c mesh.paused",),
        "ResumeRequested": ("=> Training 1", "ResumeTraining"),
        "StopRequested": ("=> Stopping 0", "SaveRound"),
    },
    "paused exchanging": {
        "TrainerStarted": ("=> paused Training 1", "StartTraining 1", "PauseTraining"),
        "TrainerLost": ("=> paused Starting 1",),
        "RoundMixed": ("=> paused Saving 1", "SaveRound 1"),
        "OfferReceived": ("RefuseEdge c mesh.paused",),
        "ResumeRequested": ("=> Mixing 1", "ResumeTraining"),
        "StopRequested": ("=> Stopping 1",),
    },
    "paused mixing": {
        "TrainerStarted": ("=> paused Training 1", "StartTraining 1", "PauseTraining"),
        "TrainerLost": ("=> paused Starting 1",),
        "RoundMixed": ("=> paused Saving 1", "SaveRound 1"),
        "OfferReceived": ("RefuseEdge c mesh.paused",),
        "ResumeRequested": ("=> Mixing 1", "ResumeTraining"),
        "StopRequested": ("=> Stopping 1",),
    },
    "paused saving": {
        "TrainerStarted": ("=> paused Training 2", "StartTraining 2", "PauseTraining"),
        "TrainerLost": ("=> paused Starting 2",),
        "RoundSaved": ("=> paused Training 2",),
        "SaveFailed": ("=> paused Training 2", "Warn mesh.save-failed"),
        "OfferReceived": ("RefuseEdge c mesh.paused",),
        "ResumeRequested": ("=> Saving 1", "ResumeTraining"),
        "StopRequested": ("=> Stopping 1",),
    },
    "paused asking": {
        "TrainerStarted": ("=> paused Training 1", "StartTraining 1", "PauseTraining"),
        "TrainerLost": ("=> paused Starting 1",),
        "RoundMixed": ("=> paused Saving 1", "SaveRound 1"),
        "OfferReceived": ("RefuseEdge c mesh.paused",),
        "ResumeRequested": ("=> Mixing 1", "ResumeTraining"),
        "StopRequested": ("=> Stopping 1",),
    },
    "paused adopting": {
        "TrainerStarted": ("=> paused Training 1", "StartTraining 1", "PauseTraining"),
        "TrainerLost": ("=> paused Starting 1",),
        "StateAdopted": ("=> paused Mixing 40", "MixRound 40"),
        "OfferReceived": ("RefuseEdge c mesh.paused",),
        "ResumeRequested": ("=> Adopting 1", "ResumeTraining"),
        "StopRequested": ("=> Stopping 1", "MixRound 1"),
    },
    "paused done": {
        "OfferReceived": ("RefuseEdge c mesh.paused",),
        "ResumeRequested": ("=> Done 1",),
        "StopRequested": ("=> Stopped 1", "StopTraining"),
    },
    "paused done_unsaved": {
        "TrainerStarted": ("=> paused Training 1", "StartTraining 1", "PauseTraining"),
        "TrainerLost": ("=> paused Starting 1",),
        "OfferReceived": ("RefuseEdge c mesh.paused",),
        "ResumeRequested": ("=> Done 1",),
        "StopRequested": ("=> Stopping 1", "SaveRound 1"),
    },
}


def test_the_events_are_all_there_are() -> None:
    assert {type(event) for event in EVENTS.values()} == set(ev.Event.__args__)


@pytest.mark.parametrize("phase", PHASES)
def test_every_event_in(phase: str) -> None:
    outcomes = {name: outcome(PHASES[phase](), event) for name, event in EVENTS.items()}
    assert {name: result for name, result in outcomes.items() if result} == TABLE[phase]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("first", EVENTS)
def test_no_two_events_break_it(phase: str, first: str) -> None:
    for second in EVENTS:
        script = PHASES[phase]()
        script.play(EVENTS[first], EVENTS[second])
        script.play(EVENTS[second], after=100.0)
        deadline = script.node.deadline()
        assert deadline is None or deadline > script.now
        script.node.view(script.now)
        script.node.needed()


@pytest.mark.parametrize("phase", PHASES)
def test_the_round_that_is_mixed_next_is(phase: str) -> None:
    """One is mixed next in these phases alone: not while it is paused, nor once the last is mixed."""
    expected = {"training": 1, "exchanging": 1, "mixing": 1, "saving": 2}
    script = PHASES[phase]()
    assert script.node.view(script.now).next_mix == expected.get(phase)


def test_after_the_last_round_none_is_mixed() -> None:
    script = Script(limited(1)).start("a", "c")
    script.publish()
    script.play(ev.EdgeBroken("c", "cut"), ev.PeerLeft("a"), ev.RoundMixed(1))
    view = script.node.view(script.now)
    assert (view.phase, view.next_mix) == ("saving", None)
