"""Bugs that the simulator has found, each as the shortest transcript that shows it, with the seed that did."""

from __future__ import annotations

from dataclasses import replace

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Receipt, Saved
from tests.mesh.script import POLICY, SCHEMA, Script, offer, snapshot


def test_what_is_published_while_a_save_is_under_way_is_needed() -> None:
    """Faults none, seed 0: the spool dropped a snapshot that the node offered as soon as the save was done."""
    s = Script(replace(POLICY, overlap=True)).start("c")
    s.publish(1)
    s.wait()
    s.play(ev.RoundMixed(1))
    assert s.phase == "saving"
    s.play(ev.RoundTrained(snapshot("b2", 2)))
    assert "b2" in s.node.needed()
    offered = [effect.offer for effect in s.play(ev.RoundSaved(1)) if isinstance(effect, ev.OpenEdge)]
    assert [ours.snapshot for ours in offered] == [snapshot("b2", 2)]


def test_a_receipt_of_an_edge_that_the_peer_refused_is_not_said_again() -> None:
    """Storm, seed 8: a peer that stopped refused an edge; it said its receipt after its restart, and alone counted."""
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1", degree=1), incoming=False))
    s.fetch("c", "c1")
    s.promise("c", "b1", "c1", 0.5)
    s.play(ev.EdgeRefused("c", "mesh.stopping", "This node is stopping; it mixes again when it is back."))
    s.finish_round(1)
    s.now += POLICY.redial_backoff
    s.publish(2)
    effects = s.play(ev.OfferReceived("c", offer("c2", 2, degree=1, mixes=1), incoming=True))
    assert not [effect for effect in effects if isinstance(effect, ev.SendReceipt)]


def test_a_receipt_on_its_way_to_disk_is_a_promise_when_the_node_stops() -> None:
    """Storm, seed 8, the other end: it refused the edge, and the receipt was written all the same."""
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1", degree=1), incoming=False))
    assert s.fetch("c", "c1") == [ev.SaveReceipt("c", Receipt("b1", "c1", 0.5))]
    effects = s.play(ev.StopRequested())
    assert not [effect for effect in effects if isinstance(effect, ev.RefuseEdge)]
    assert s.promise("c", "b1", "c1", 0.5) == [ev.SendReceipt("c", Receipt("b1", "c1", 0.5))]


def test_a_node_that_comes_back_keeps_its_word() -> None:
    """The same edge, mixed by the peer: what is on disk is said again, and counts when the peer answers."""
    promise = ev.Edge("c", "b1", "c1", 0.5)
    s = Script(saved=Saved(1, 0, SCHEMA, snapshot("s1", 1), promised=(promise,))).start("c")
    s.publish(2)
    effects = s.play(ev.OfferReceived("c", offer("c2", 2, degree=1, mixes=1), incoming=True))
    assert ev.SendReceipt("c", Receipt("b1", "c1", 0.5)) in effects
    s.receive("c", "b1", "c1", 0.5)
    assert promise in s.node.edges.ledger.ready


def test_a_peer_that_is_no_neighbour_any_more_is_still_told_of_the_last_receipt() -> None:
    """Storm on a ring of six, seed 744848185: the receipt was lost with its stream, and then the ring had changed."""
    s = Script(replace(POLICY, topology="ring")).start("a", "c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1"), incoming=False))
    s.fetch("c", "c1")
    s.promise("c", "b1", "c1", 1 / 3)
    s.play(ev.EdgeBroken("c", "reset"))
    s.meet("bb")  # between us and c
    effects = s.play(ev.OfferReceived("c", offer("c2", 2), incoming=True))
    assert effects[0] == ev.SendReceipt("c", Receipt("b1", "c1", 1 / 3))
    assert isinstance(effects[1], ev.RefuseEdge)
    assert effects[1].reason == "mesh.not-a-neighbour"


def again(effects: list[ev.Effect], peer: str) -> list[tuple[Receipt, ...]]:
    """Return what is said again on each stream that is opened to the peer."""
    return [effect.again for effect in effects if isinstance(effect, ev.OpenEdge) and effect.peer == peer]


def test_a_receipt_is_said_again_until_the_peer_shows_that_it_has_heard_it() -> None:
    """Storm on six, seed 816512574: two streams broke in turn, and only the newer receipt was said again."""
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1", degree=1), incoming=False))
    s.fetch("c", "c1")
    s.promise("c", "b1", "c1", 0.5)
    s.play(ev.EdgeBroken("c", "reset"))
    s.finish_round(1)
    s.publish(2)
    s.play(ev.OfferReceived("c", offer("c2", 2, degree=1), incoming=True))
    [save] = s.fetch("c", "c2")
    assert isinstance(save, ev.SaveReceipt)
    s.promise("c", "b2", "c2", save.receipt.weight)
    s.play(ev.EdgeBroken("c", "reset"))
    s.finish_round(2)
    assert again(s.publish(3), "c") == [(Receipt("b1", "c1", 0.5), save.receipt)]
    s.play(
        ev.OfferReceived("c", offer("c3", 3, degree=1), incoming=False)
    )  # it has read all that came before our offer
    s.play(ev.EdgeBroken("c", "reset"))
    s.finish_round(3)
    assert again(s.publish(4), "c") == [()]


def test_one_that_is_no_neighbour_any_more_is_reminded_of_what_it_may_not_have_heard() -> None:
    """Gentle storm on a ring of six, seed 2: a newcomer came between the two, and no stream was opened any more."""
    s = Script(replace(POLICY, topology="ring")).start("a", "c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c1"), incoming=False))
    s.fetch("c", "c1")
    s.promise("c", "b1", "c1", 1 / 3)
    s.play(ev.EdgeBroken("c", "reset"))
    s.play(ev.EdgeBroken("a", "reset"))
    s.meet("bb")  # between us and c
    while s.phase == "exchanging":
        s.wait()
    s.finish_round(1)
    assert again(s.publish(2), "c") == [(Receipt("b1", "c1", 1 / 3),)]
    s.play(ev.EdgeRefused("c", "mesh.not-a-neighbour", "We are no neighbours."))
    while s.phase == "exchanging":
        s.wait()
    s.finish_round(2)
    assert again(s.publish(3), "c") == []


def test_a_newcomer_that_has_chosen_takes_no_offer_of_one_that_it_had_asked() -> None:
    """Storm of 30 rounds, seed 1001102: its stream was answered, the snapshot fetched, and the stream left open."""
    s = Script().start("a", "c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c40", 40, mixes=30), incoming=False))
    s.play(ev.SnapshotReceived("c", "c40"), ev.SnapshotInspected("c", "c40", True, 3.0))
    assert s.wait() == [ev.CloseEdge("a"), ev.AdoptState(("c40",), None)]
    [refusal] = s.play(ev.OfferReceived("a", offer("a40", 40, mixes=30), incoming=True))
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.adopting"


def test_a_receipt_said_again_late_does_not_end_another_edge_with_the_same_snapshot() -> None:
    """Storm on an exponential graph of six, seed 1610014389: the edge was refused, and counted at the other end."""
    s = Script().start("c")
    s.publish(1)
    s.play(ev.OfferReceived("c", offer("c2", 2, degree=1), incoming=False))
    s.fetch("c", "c2")
    s.promise("c", "b1", "c2", 0.5)
    assert s.play(ev.ReceiptReceived("c", Receipt("c1", "b1", 0.5))) == []  # of a stream before, that broke
    assert s.play(ev.ReceiptReceived("c", Receipt("c2", "b1", 0.5)))[0] == ev.CloseEdge("c")
