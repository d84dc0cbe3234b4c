"""Transcripts of a stream that breaks between the two receipts: the edge goes on where another stream comes up."""

from __future__ import annotations

import pytest

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Edge, Receipt
from tests.mesh.script import POLICY, Script, limited, offer, snapshot

OURS, THEIRS = Receipt("b1", "c1", 1 / 3), Receipt("c1", "b1", 1 / 3)


def half_open(s: Script) -> Script:
    """Our receipt for ``c`` is sent, and the stream breaks; ``d`` is waited for."""
    s.start("c", "d")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1"), incoming=False))
    s.fetch("c", "c1")
    s.promise("c", "b1", "c1", 1 / 3)
    s.play(ev.EdgeBroken("c", "cut"))
    return s


def opened_again(s: Script) -> Script:
    """Our second stream is up, and says the receipt first."""
    [effect] = s.wait()
    assert isinstance(effect, ev.OpenEdge)
    assert (effect.peer, effect.again) == ("c", (OURS,))
    return s


def test_what_the_peer_says_first_on_the_new_stream_completes_the_edge() -> None:
    s = opened_again(half_open(Script()))
    assert s.play(ev.ReceiptReceived("c", THEIRS)) == []
    assert s.node.edges.ledger.ready == (Edge("c", "b1", "c1", 1 / 3),)


def test_a_peer_that_has_not_promised_yet_is_told_last_as_well() -> None:
    """It could not take the receipt before its offer: there was no pair that it was of."""
    s = opened_again(half_open(Script()))
    assert s.play(ev.OfferReceived("c", offer("c1"), incoming=False)) == [ev.SendReceipt("c", OURS)]
    assert s.play(ev.ReceiptReceived("c", THEIRS)) == [ev.CloseEdge("c")]


def test_so_is_one_that_opens_the_new_stream() -> None:
    s = half_open(Script())
    again, answer, last = s.play(ev.OfferReceived("c", offer("c1"), incoming=True))
    assert again == last == ev.SendReceipt("c", OURS)
    assert isinstance(answer, ev.AnswerEdge)
    assert s.play(ev.ReceiptReceived("c", THEIRS)) == [ev.CloseEdge("c")]


@pytest.mark.parametrize("settled", [False, True])
def test_a_newer_snapshot_of_the_peer_waits_for_its_own_stream(settled: bool) -> None:
    s = opened_again(half_open(Script()))
    if settled:
        s.play(ev.ReceiptReceived("c", THEIRS))
    assert s.play(ev.OfferReceived("c", offer("c2", 2), incoming=False)) == [ev.CloseEdge("c")]
    assert "c" not in s.node.edges.sessions


def test_the_last_round_waits_for_the_answer_up_to_the_ceiling() -> None:
    s = half_open(Script(limited(1)))
    s.play(ev.EdgeRefused("d", "mesh.no-room", "No room."))
    s.now = s.node.edges.published.at + 0.75 * POLICY.wait_ceiling if s.node.edges.published else 0.0
    s.meet("c")
    assert s.node.view(s.now).waiting_for == ("c",)
    assert s.play(ev.ReceiptReceived("c", THEIRS))[-1] == ev.MixRound(1, (Edge("c", "b1", "c1", 1 / 3),))


def test_a_promise_given_up_is_not_said_again() -> None:
    s = half_open(Script())
    s.play(ev.PeerLeft("c"), ev.PeerLeft("d"))
    for round in range(1, 20):
        s.finish_round(round)
        s.play(ev.RoundTrained(snapshot(f"b{round + 1}", round + 1)), after=100.0)
    assert s.node.edges.ledger.promised("c") is None
    assert s.node.edges.unheard.of("c") == ()


def test_a_late_promise_is_of_the_snapshot_before_and_does_not_go_on_with_the_present_one() -> None:
    """Storm on six, seed 6000066: the ends of a stream paired different snapshots, and waited for each other."""
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1", degree=1), incoming=False))
    s.wait()
    s.finish_round(1)
    s.publish(2)
    s.fetch("c", "c1")
    s.promise("c", "b1", "c1", 0.5)
    s.play(ev.EdgeBroken("c", "cut"))
    again = ev.SendReceipt("c", Receipt("b1", "c1", 0.5))
    assert s.play(ev.OfferReceived("c", offer("c1", degree=1), incoming=True)) == [again]  # and held
    s.play(ev.ReceiptReceived("c", Receipt("c1", "b1", 0.5)))
    assert s.node.edges.ledger.ready == (Edge("c", "b1", "c1", 0.5),)  # for the next mix
