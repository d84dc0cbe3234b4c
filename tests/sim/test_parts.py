"""The parts of the second world: virtual time, disk, trace, plan, problems."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from decaf_node.errors import UsageError
from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Edge, Receipt, Snapshot
from decaf_node.sim.agenda import AT_ONE_TIME, Agenda
from decaf_node.sim.disk import Disk, SavedRound
from decaf_node.sim.faults import PROFILES
from decaf_node.sim.least_squares import LeastSquares
from decaf_node.sim.plan import Plan, check
from decaf_node.sim.problem import Averaging
from decaf_node.sim.trace import REMEMBERED, Trace
from decaf_node.sim.violation import Violation


def saved(round: int) -> SavedRound:
    return SavedRound(round, round, Snapshot(f"s{round}", round, 8, 1000), 0.0, None, {})


# --- time --------------------------------------------------------------------------------------------------------


def test_things_are_done_in_the_order_of_their_times_and_then_of_their_coming() -> None:
    agenda, done = Agenda(), list[str]()
    for time, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (9.0, "never")):
        agenda.at(time, done.append, name)
    agenda.run(5.0)
    assert done == ["a", "b", "c"]
    assert (agenda.now, len(agenda)) == (5.0, 1)


def test_nothing_is_done_in_the_past() -> None:
    agenda, times = Agenda(), list[float]()
    agenda.at(3.0, lambda: agenda.at(1.0, lambda: times.append(agenda.now)))
    agenda.run(5.0)
    assert times == [3.0]


def test_a_world_that_does_not_move_on_is_found_out() -> None:
    agenda = Agenda()

    def again() -> None:
        agenda.at(agenda.now, again)

    agenda.at(1.0, again)
    with pytest.raises(Violation, match=rf"livelock: {AT_ONE_TIME + 1} things"):
        agenda.run(2.0)


# --- disk --------------------------------------------------------------------------------------------------------


def test_a_commit_drops_the_receipts_that_it_covers_and_keeps_two_rounds() -> None:
    disk = Disk(spool={"own": 1, "theirs": 2})
    disk.write_ours("c", Receipt("own", "theirs", 0.5), None, 1.0)
    assert disk.edges() == ((), (Edge("c", "own", "theirs", 0.5),))
    for round in (1, 2, 3):
        disk.commit(saved(round), (Edge("c", "own", "theirs", 0.5),), ())
    assert [one.round for one in disk.rounds] == [3, 2]
    assert disk.edges() == ((), ())


@pytest.mark.parametrize("early", [True, False])
def test_both_receipts_make_an_edge_in_whichever_order_they_come(early: bool) -> None:
    disk, theirs = Disk(spool={"own": 1, "theirs": 2}), Receipt("theirs", "own", 0.25)
    assert disk.write_theirs("c", theirs) is False
    disk.write_ours("c", Receipt("own", "theirs", 0.5), theirs if early else None, 1.0)
    if not early:
        assert disk.write_theirs("c", theirs) is True
    assert disk.edges() == ((Edge("c", "own", "theirs", 0.25),), ())


def test_a_power_cut_takes_the_spool_and_the_receipts_that_were_not_flushed() -> None:
    disk = Disk(spool={"own": 1, "theirs": 2, "other": 3})
    disk.write_ours("c", Receipt("own", "theirs", 0.5), None, 1.0)
    disk.write_ours("d", Receipt("own", "other", 0.5), None, 9.0)
    disk.lose_power(lost_since=5.0)
    assert list(disk.receipts) == [("c", "own")]
    assert disk.edges() == ((), ())  # without bytes nothing can be mixed again


def test_a_damaged_round_is_passed_over_for_the_one_before() -> None:
    disk = Disk()
    disk.commit(saved(1), (), ())
    assert not disk.damage_newest()
    disk.commit(saved(2), (), ())
    assert disk.damage_newest()
    newest = disk.newest()
    assert newest is not None
    assert (newest.round, disk.acknowledged) == (1, 1)


# --- trace -------------------------------------------------------------------------------------------------------


def test_the_hash_is_of_all_that_happened_and_the_transcript_of_the_last() -> None:
    one, other = Trace(), Trace()
    for trace, peer in ((one, "b"), (other, "c")):
        for second in range(REMEMBERED + 5):
            trace.note(float(second), "n0", ev.PeerSilent(peer, "no answer"), [ev.ProbePeer(peer)])
    assert one.digest() != other.digest()
    assert one.steps == REMEMBERED + 5
    assert one.transcript()[-2:] == [
        "    64.000  n0     PeerSilent(peer='b', problem='no answer')",
        "                     -> ProbePeer(peer='b')",
    ]


# --- plan --------------------------------------------------------------------------------------------------------

IMPOSSIBLE: dict[str, tuple[Callable[[], Plan], str]] = {
    "one node": (lambda: Plan(nodes=1), "A mesh of 1 cannot be simulated"),
    "a ring of two": (lambda: Plan(nodes=2, topology="ring"), "A ring needs 3 nodes, and --nodes is 2"),
    "topology": (lambda: Plan(topology="star"), "No topology is called 'star'; choose one of auto, full"),
    "payload": (lambda: Plan(payload="llm"), "No payload is called 'llm'"),
    "no round": (lambda: Plan(rounds=0), "0 rounds cannot be simulated; give --rounds from 1"),
    "length": (lambda: Plan(round_seconds=math.nan), "A round of nan s cannot be"),
    "spread": (lambda: Plan(spread=0.5), "Nodes cannot differ in speed by a factor of 0.5"),
    "loss": (
        lambda: Plan(faults=replace(PROFILES["none"], loss=-0.1)),
        "No part -0.1 of the packets can be lost; give --loss",
    ),
    "churn": (
        lambda: Plan(faults=replace(PROFILES["none"], strikes=math.inf)),
        "A node is not struck inf times an hour",
    ),
}


@pytest.mark.parametrize("case", sorted(IMPOSSIBLE))
def test_what_cannot_be_is_refused_in_one_sentence(case: str) -> None:
    make, sentence = IMPOSSIBLE[case]
    with pytest.raises(UsageError) as caught:
        check(make())
    assert caught.value.reason == "simulate.impossible"
    assert caught.value.message.startswith(sentence)


# --- problems ----------------------------------------------------------------------------------------------------


def test_averaging_mixes_by_weights_and_adopts_the_middle_one() -> None:
    problem = Averaging(3, seed=1)
    assert problem.mix(1.0, [(0.25, 1.0, 3.0), (0.5, 1.0, 1.0)]).value == 1.5
    assert problem.adopt(0.0, [9.0, 1.0, 2.0], None) == (2, 2.0)
    assert problem.measure([1.0, 3.0]).consensus == 1.0


@pytest.mark.slow
def test_alone_a_node_does_not_reach_the_optimum_and_together_they_do() -> None:
    """The known optimum has loss 0. Gossip here is exact: everyone mixes with everyone after each round."""
    problem = LeastSquares(6, seed=3)
    alone = [problem.fresh(number) for number in range(6)]
    mesh = list(alone)
    for _ in range(60):
        alone = [problem.train(value, number, Random(0)) for number, value in enumerate(alone)]
        trained = [problem.train(value, number, Random(0)) for number, value in enumerate(mesh)]
        mesh = [
            problem.mix(ours, [(1 / 6, ours, theirs) for theirs in trained if theirs is not ours]).value
            for ours in trained
        ]
    assert problem.measure(mesh).loss < 0.02
    assert problem.measure(alone).loss > 0.2
    assert problem.measure(mesh).consensus < problem.measure(alone).consensus / 10


def test_a_mix_misses_the_exact_sum_by_its_tail_and_no_more() -> None:
    problem = LeastSquares(3, seed=2)
    one, two, three = (problem.train(problem.fresh(number), number, Random(0)) for number in range(3))
    terms = [(0.3, one, two), (0.3, one, three)]
    mixed = problem.mix(one, terms)
    assert mixed.tail > 0
    assert problem.residual(one, terms, mixed.value) == pytest.approx(mixed.tail, rel=1e-6)
