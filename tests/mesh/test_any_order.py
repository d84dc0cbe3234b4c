"""Any events in any order: the machine takes them all, and what must always hold does."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Edge, Event, Saved
from tests.mesh import test_every_pair, test_every_stage
from tests.mesh.script import POLICY, SCHEMA, Script, offer, snapshot

WORDS = [*test_every_pair.EVENTS.values(), *test_every_stage.EVENTS.values()]
SAVED = Saved(3, 2, SCHEMA, snapshot("s3", 3), unsaved=(Edge("c", "b3", "c3", 0.5),), absent=50.0)


def another(event: Event, peer: str, round: int) -> Event:
    """Return the event about another peer, or of another round."""
    if isinstance(event, ev.RoundTrained):
        return ev.RoundTrained(snapshot(f"b{round}", round))
    if isinstance(event, ev.OfferReceived) and not event.offer.adopt:
        ahead = replace(event, offer=offer(f"{peer}{round}", round, mixes=round % 3))
        return replace(ahead, peer=peer)
    if hasattr(event, "peer"):
        return replace(event, peer=peer)  # type: ignore[arg-type]
    return event


def answers(effect: ev.Effect) -> list[Event]:
    """Return what may well follow an effect."""
    match effect:
        case ev.StartTraining(round):
            return [ev.RoundTrained(snapshot(f"b{round}", round))]
        case ev.MixRound(round):
            return [ev.RoundMixed(round), ev.RoundTrained(snapshot(f"b{round + 1}", round + 1))]
        case ev.SaveRound(round):
            return [ev.RoundSaved(round)]
        case ev.FetchSnapshot(peer, fetched):
            return [ev.SnapshotReceived(peer, fetched.digest)]
        case ev.InspectSnapshot(peer, digest):
            return [ev.SnapshotInspected(peer, digest, True, 2.5)]
        case ev.SaveReceipt(peer, receipt):
            theirs = replace(receipt, own=receipt.theirs, theirs=receipt.own)
            return [ev.ReceiptSaved(peer, receipt), ev.ReceiptReceived(peer, theirs)]
        case ev.OpenEdge(peer, ours):
            mixes = 5 if ours.adopt else 0
            return [ev.OfferReceived(peer, offer(f"{peer}{ours.round}", ours.round, mixes=mixes), incoming=False)]
        case ev.AdoptState(candidates):
            return [ev.StateAdopted(candidates[0])]
        case ev.PauseTraining():
            return [ev.ResumeRequested()]
    return []


RARE = ev.StopRequested | ev.PauseRequested | ev.TrainerLost | ev.TrainerStarted


def choose(random: Random, round: int, expected: list[Event]) -> Event:
    """Return an event that is expected, in any order and perhaps again, or one that is not."""
    if expected and random.random() < 0.7:
        event = random.choice(expected)
        if random.random() < 0.8:
            expected.remove(event)
        return event
    while isinstance(word := random.choice(WORDS), RARE) and random.random() < 0.9:
        pass
    return another(word, random.choice("aacccde"), round)


def run(seed: int, length: int) -> None:
    random = Random(seed)
    policy = replace(
        POLICY,
        limit=random.choice([0, 0, 5]),
        topology=random.choice(["full", "ring", "one-peer-exponential", "base-k"]),
        overlap=random.random() < 0.5,
        save_every=random.choice([0.0, 50.0]),
        unsaved_receipts=3,
        peer_limit=4,
        adopt_after=random.choice([10.0, 1e9]),
    )
    script = Script(policy, random.choice([None, SAVED]))
    expected: list[Event] = [ev.TrainerStarted(SCHEMA, 8)]
    round = 0
    for _ in range(length):
        event = choose(random, round, expected)
        effects = script.play(event, after=random.choice([0.0, 0.0, 0.1, 5.0]))
        check(script, effects)
        expected = [*expected, *(answer for effect in effects for answer in answers(effect))][-20:]
        if isinstance(event, ev.TrainerLost):
            expected.append(ev.TrainerStarted(SCHEMA, 8))
        if script.phase in ("stopping", "stopped"):
            return
        assert script.node.phase.round >= round, "a round number went back"
        round = script.node.phase.round


def check(script: Script, effects: list[ev.Effect]) -> None:
    node, deadline = script.node, script.node.deadline()
    assert deadline is None or deadline > script.now
    node.view(script.now)
    ledger = node.edges.ledger
    assert ledger.owed() <= 1.0 + 1e-12
    for effect in effects:
        match effect:
            case ev.MixRound(_, edges):
                assert len({(edge.peer, edge.own) for edge in edges}) == len(edges)
                assert {digest for edge in edges for digest in (edge.own, edge.theirs)} <= node.needed()
            case ev.SaveReceipt(peer, receipt):
                assert 0.0 < receipt.weight < 1.0
                refused = any(isinstance(other, ev.RefuseEdge) and other.peer == peer for other in effects)
                assert refused or {receipt.own, receipt.theirs} <= node.needed()
            case ev.RefuseEdge(message=message) | ev.Warn(message=message):
                assert message.endswith(".")
                assert message[0].isupper()


@pytest.mark.parametrize("seed", range(10))
def test_no_order_of_events_breaks_it(seed: int) -> None:
    for sub in range(20):
        run(1000 * seed + sub, length=150)
