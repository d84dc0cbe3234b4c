"""Every stage of an edge's stream with everything that can come on it. What is not in the table changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Event, Offer, Receipt
from tests.mesh.script import SCHEMA, Script, offer, snapshot
from tests.mesh.test_every_pair import short

WEIGHT = 1 / 3


def no_stream() -> Script:
    """``c`` and ``a`` are neighbours; the stream to ``c`` broke and is not opened again yet."""
    script = opened()
    script.play(ev.EdgeBroken("c", "cut"))
    return script


def opened() -> Script:
    script = Script().start("a", "c")
    script.publish()
    return script


def held() -> Script:
    """``c`` has offered while we train."""
    script = Script().start("a", "c")
    script.play(ev.OfferReceived("c", offer("c1"), incoming=True))
    return script


def fetching() -> Script:
    script = opened()
    script.play(ev.OfferReceived("c", offer("c1"), incoming=False))
    return script


def fetching_promised() -> Script:
    """Their receipt is here before their snapshot."""
    script = fetching()
    script.receive("c", "b1", "c1", 0.25)
    return script


def inspecting() -> Script:
    script = fetching()
    script.play(ev.SnapshotReceived("c", "c1"))
    return script


def promising() -> Script:
    script = inspecting()
    script.play(ev.SnapshotInspected("c", "c1", True, 2.5))
    return script


def promising_promised() -> Script:
    script = promising()
    script.receive("c", "b1", "c1", 0.25)
    return script


def promised() -> Script:
    script = promising()
    script.promise("c", "b1", "c1", WEIGHT)
    return script


def complete() -> Script:
    script = promised()
    script.receive("c", "b1", "c1", 0.25)
    return script


def serving() -> Script:
    script = opened()
    script.play(ev.OfferReceived("c", Offer(SCHEMA, None, 0, 0, 0, adopt=True), incoming=True))
    return script


STAGES: dict[str, Callable[[], Script]] = {
    make.__name__: make
    for make in (
        no_stream,
        opened,
        held,
        fetching,
        fetching_promised,
        inspecting,
        promising,
        promising_promised,
        promised,
        complete,
        serving,
    )
}

EVENTS: dict[str, Event] = {
    "offer on its stream": ev.OfferReceived("c", offer("c1"), incoming=True),
    "next offer on its stream": ev.OfferReceived("c", offer("c2", 2), incoming=True),
    "offer on our stream": ev.OfferReceived("c", offer("c1"), incoming=False),
    "other schema": ev.OfferReceived("c", Offer("07" * 32, snapshot("c1"), 1, 2, 0), incoming=True),
    "no snapshot": ev.OfferReceived("c", Offer(SCHEMA, None, 1, 2, 0), incoming=True),
    "too large": ev.OfferReceived("c", Offer(SCHEMA, snapshot("c1", size=2**40), 1, 2, 0), incoming=True),
    "newcomer asks": ev.OfferReceived("c", Offer(SCHEMA, None, 0, 0, 0, adopt=True), incoming=True),
    "snapshot": ev.SnapshotReceived("c", "c1"),
    "another snapshot": ev.SnapshotReceived("c", "c0"),
    "torn snapshot": ev.SnapshotRefused("c", "c1", "it is torn."),
    "inspected": ev.SnapshotInspected("c", "c1", True, 2.5),
    "inspected another": ev.SnapshotInspected("c", "c0", True, 2.5),
    "not finite": ev.SnapshotInspected("c", "c1", False, math.nan),
    "infinitely far": ev.SnapshotInspected("c", "c1", True, math.inf),
    "cannot be mixed": ev.SnapshotInspected("c", "c1", True, 2.5, "layers differ"),
    "receipt saved": ev.ReceiptSaved("c", Receipt("b1", "c1", WEIGHT)),
    "another receipt saved": ev.ReceiptSaved("c", Receipt("b0", "c1", WEIGHT)),
    "receipt": ev.ReceiptReceived("c", Receipt("c1", "b1", 0.25)),
    "receipt of an old edge": ev.ReceiptReceived("c", Receipt("c0", "b0", 0.25)),
    "receipt of another snapshot": ev.ReceiptReceived("c", Receipt("c9", "b1", 0.25)),
    "receipt of 0": ev.ReceiptReceived("c", Receipt("c1", "b1", 0.0)),
    "receipt above 1": ev.ReceiptReceived("c", Receipt("c1", "b1", 1.5)),
    "receipt of nan": ev.ReceiptReceived("c", Receipt("c1", "b1", math.nan)),
    "refused": ev.EdgeRefused("c", "mesh.not-a-neighbour", "We are no neighbours."),
    "lower one has called": ev.EdgeRefused("c", "mesh.duplicate-stream", "The lower ID has opened one."),
    "broken": ev.EdgeBroken("c", "cut"),
    "silent": ev.PeerSilent("c", "no answer"),
    "left": ev.PeerLeft("c"),
}


def stage(script: Script) -> str:
    """Return the stage of the stream with ``c``, and what is promised to it or counts."""
    edges = script.node.edges
    words = [type(edges.sessions["c"]).__name__] if "c" in edges.sessions else []
    words += ["half-open"] if (promise := edges.ledger.promised("c")) is not None and promise.sent else []
    words += [f"counts {edge.weight}" for edge in edges.ledger.ready]
    return ", ".join(words)


def outcome(script: Script, event: Event) -> tuple[str, ...]:
    before = stage(script)
    effects = tuple(short(effect) for effect in script.play(event))
    return effects if stage(script) == before else (f"=> {stage(script)}", *effects)


TABLE: dict[str, dict[str, tuple[str, ...]]] = {
    "no_stream": {  #
        "offer on its stream": ("=> Fetching", "AnswerEdge c", "FetchSnapshot c"),
        "next offer on its stream": ("=> Fetching", "AnswerEdge c", "FetchSnapshot c"),
        "other schema": ("RefuseEdge c mesh.other-schema",),
        "no snapshot": ("RefuseEdge c mesh.bad-offer",),
        "too large": ("RefuseEdge c mesh.too-large",),
        "newcomer asks": ("=> Serving", "AnswerEdge c"),
        "receipt of 0": ("RefuseEdge c mesh.bad-receipt",),
        "receipt above 1": ("RefuseEdge c mesh.bad-receipt",),
        "receipt of nan": ("RefuseEdge c mesh.bad-receipt",),
    },
    "opened": {  # Opened
        "offer on its stream": ("=> Fetching", "AnswerEdge c", "FetchSnapshot c"),
        "next offer on its stream": ("=> Fetching", "AnswerEdge c", "FetchSnapshot c"),
        "offer on our stream": ("=> Fetching", "FetchSnapshot c"),
        "other schema": ("=> ", "RefuseEdge c mesh.other-schema"),
        "no snapshot": ("=> ", "RefuseEdge c mesh.bad-offer"),
        "too large": ("=> ", "RefuseEdge c mesh.too-large"),
        "newcomer asks": ("=> Serving", "AnswerEdge c"),
        "receipt of 0": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt above 1": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt of nan": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "refused": ("=> ",),
        "lower one has called": ("=> ",),
        "broken": ("=> ",),
        "silent": ("=> ", "CloseEdge c"),
        "left": ("=> ", "CloseEdge c"),
    },
    "held": {  # Held
        "other schema": ("=> ", "RefuseEdge c mesh.other-schema"),
        "no snapshot": ("=> ", "RefuseEdge c mesh.bad-offer"),
        "too large": ("=> ", "RefuseEdge c mesh.too-large"),
        "newcomer asks": ("=> ", "RefuseEdge c mesh.no-snapshot"),
        "receipt of 0": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt above 1": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt of nan": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "refused": ("=> ",),
        "lower one has called": ("=> ",),
        "broken": ("=> ",),
        "left": ("=> ", "CloseEdge c"),
    },
    "fetching": {  # Fetching
        "offer on its stream": ("AnswerEdge c", "FetchSnapshot c"),
        "next offer on its stream": ("AnswerEdge c", "FetchSnapshot c"),
        "other schema": ("=> ", "RefuseEdge c mesh.other-schema"),
        "no snapshot": ("=> ", "RefuseEdge c mesh.bad-offer"),
        "too large": ("=> ", "RefuseEdge c mesh.too-large"),
        "newcomer asks": ("=> Serving", "AnswerEdge c"),
        "snapshot": ("=> Inspecting", "InspectSnapshot c"),
        "torn snapshot": ("=> ", "RefuseEdge c mesh.bad-snapshot"),
        "receipt of 0": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt above 1": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt of nan": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "refused": ("=> ",),
        "lower one has called": ("=> ",),
        "broken": ("=> ",),
        "left": ("=> ", "CloseEdge c"),
    },
    "fetching_promised": {  # Fetching
        "offer on its stream": ("AnswerEdge c", "FetchSnapshot c"),
        "next offer on its stream": ("AnswerEdge c", "FetchSnapshot c"),
        "other schema": ("=> ", "RefuseEdge c mesh.other-schema"),
        "no snapshot": ("=> ", "RefuseEdge c mesh.bad-offer"),
        "too large": ("=> ", "RefuseEdge c mesh.too-large"),
        "newcomer asks": ("=> Serving", "AnswerEdge c"),
        "snapshot": ("=> Inspecting", "InspectSnapshot c"),
        "torn snapshot": ("=> ", "RefuseEdge c mesh.bad-snapshot"),
        "receipt of 0": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt above 1": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt of nan": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "refused": ("=> ",),
        "lower one has called": ("=> ",),
        "broken": ("=> ",),
        "left": ("=> ", "CloseEdge c"),
    },
    "inspecting": {  # Inspecting
        "offer on its stream": ("=> Fetching", "AnswerEdge c", "FetchSnapshot c"),
        "next offer on its stream": ("=> Fetching", "AnswerEdge c", "FetchSnapshot c"),
        "other schema": ("=> ", "RefuseEdge c mesh.other-schema"),
        "no snapshot": ("=> ", "RefuseEdge c mesh.bad-offer"),
        "too large": ("=> ", "RefuseEdge c mesh.too-large"),
        "newcomer asks": ("=> Serving", "AnswerEdge c"),
        "inspected": ("=> Promising", "SaveReceipt c"),
        "not finite": ("=> ", "RefuseEdge c mesh.not-finite"),
        "infinitely far": ("=> ", "RefuseEdge c mesh.not-finite"),
        "cannot be mixed": ("=> ", "RefuseEdge c mesh.bad-snapshot"),
        "receipt of 0": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt above 1": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt of nan": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "refused": ("=> ",),
        "lower one has called": ("=> ",),
        "broken": ("=> ",),
        "left": ("=> ", "CloseEdge c"),
    },
    "promising": {  # Promising
        "offer on its stream": ("=> Held",),
        "next offer on its stream": ("=> Held",),
        "other schema": ("=> ", "RefuseEdge c mesh.other-schema"),
        "no snapshot": ("=> ", "RefuseEdge c mesh.bad-offer"),
        "too large": ("=> ", "RefuseEdge c mesh.too-large"),
        "newcomer asks": ("=> Serving", "AnswerEdge c"),
        "receipt saved": ("=> Promised, half-open", "SendReceipt c"),
        "receipt of 0": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt above 1": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt of nan": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "refused": ("=> ",),
        "lower one has called": ("=> ",),
        "broken": ("=> ",),
        "left": ("=> ", "CloseEdge c"),
    },
    "promising_promised": {  # Promising
        "offer on its stream": ("=> Held",),
        "next offer on its stream": ("=> Held",),
        "other schema": ("=> ", "RefuseEdge c mesh.other-schema"),
        "no snapshot": ("=> ", "RefuseEdge c mesh.bad-offer"),
        "too large": ("=> ", "RefuseEdge c mesh.too-large"),
        "newcomer asks": ("=> Serving", "AnswerEdge c"),
        "receipt saved": ("=> counts 0.25", "SendReceipt c", "CloseEdge c"),
        "receipt of 0": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt above 1": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt of nan": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "refused": ("=> ",),
        "lower one has called": ("=> ",),
        "broken": ("=> ",),
        "left": ("=> ", "CloseEdge c"),
    },
    "promised": {  # Promised, half-open
        "offer on its stream": ("SendReceipt c", "AnswerEdge c", "SendReceipt c"),
        "next offer on its stream": ("=> Held, half-open", "SendReceipt c"),
        "other schema": ("=> half-open", "SendReceipt c", "RefuseEdge c mesh.other-schema"),
        "no snapshot": ("=> half-open", "SendReceipt c", "RefuseEdge c mesh.bad-offer"),
        "too large": ("=> half-open", "SendReceipt c", "RefuseEdge c mesh.too-large"),
        "newcomer asks": ("=> Serving, half-open", "SendReceipt c", "AnswerEdge c"),
        "receipt": ("=> counts 0.25", "CloseEdge c"),
        "receipt of 0": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt above 1": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt of nan": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "refused": ("=> ",),
        "lower one has called": ("=> half-open",),
        "broken": ("=> half-open",),
        "left": ("=> half-open", "CloseEdge c"),
    },
    "complete": {  # counts 0.25
        "offer on its stream": ("SendReceipt c", "RefuseEdge c mesh.used-snapshot"),
        "next offer on its stream": ("=> Held, counts 0.25", "SendReceipt c"),
        "other schema": ("SendReceipt c", "RefuseEdge c mesh.other-schema"),
        "no snapshot": ("SendReceipt c", "RefuseEdge c mesh.bad-offer"),
        "too large": ("SendReceipt c", "RefuseEdge c mesh.too-large"),
        "newcomer asks": ("=> Serving, counts 0.25", "SendReceipt c", "AnswerEdge c"),
        "receipt of 0": ("RefuseEdge c mesh.bad-receipt",),
        "receipt above 1": ("RefuseEdge c mesh.bad-receipt",),
        "receipt of nan": ("RefuseEdge c mesh.bad-receipt",),
    },
    "serving": {  # Serving
        "offer on its stream": ("=> Fetching", "AnswerEdge c", "FetchSnapshot c"),
        "next offer on its stream": ("=> Fetching", "AnswerEdge c", "FetchSnapshot c"),
        "other schema": ("=> ", "RefuseEdge c mesh.other-schema"),
        "no snapshot": ("=> ", "RefuseEdge c mesh.bad-offer"),
        "too large": ("=> ", "RefuseEdge c mesh.too-large"),
        "newcomer asks": ("AnswerEdge c",),
        "receipt of 0": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt above 1": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "receipt of nan": ("=> ", "RefuseEdge c mesh.bad-receipt"),
        "refused": ("=> ",),
        "lower one has called": ("=> ",),
        "broken": ("=> Opened", "OpenEdge c"),
        "left": ("=> ", "CloseEdge c"),
    },
}


def test_the_events_are_all_that_come_on_streams() -> None:
    peers = {kind for kind in ev.Event.__args__ if "peer" in kind.__dataclass_fields__}
    assert {type(event) for event in EVENTS.values()} == peers - {ev.PeerFound, ev.PeerAnswered, ev.HelloReceived}


@pytest.mark.parametrize("name", STAGES)
def test_everything_that_can_come_while(name: str) -> None:
    outcomes = {what: outcome(STAGES[name](), event) for what, event in EVENTS.items()}
    assert {what: result for what, result in outcomes.items() if result} == TABLE[name]


MESSAGES = [what for what in EVENTS if "snapshot" in what or "inspected" in what or "receipt" in what]


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("message", [what for what in MESSAGES if what != "no snapshot"])
def test_twice_is_once(name: str, message: str) -> None:
    """A repeated message adds no edge and no second promise."""
    once, twice = STAGES[name](), STAGES[name]()
    once.play(EVENTS[message])
    twice.play(EVENTS[message])
    repeated = twice.play(EVENTS[message])
    assert stage(once) == stage(twice)
    assert not [effect for effect in repeated if not isinstance(effect, ev.RefuseEdge)]
