"""Whole simulated meshes: storms, what a gentle world must never show, slow nodes and newcomers."""

from __future__ import annotations

import secrets
from dataclasses import replace
from random import Random

import pytest

from decaf_node.mesh.policy import Policy
from decaf_node.mesh.topology import TOPOLOGIES
from decaf_node.sim.campaign import combined_trace, cores, play_here
from decaf_node.sim.faults import GENTLE, PROFILES
from decaf_node.sim.plan import Plan
from decaf_node.sim.run import play
from decaf_node.sim.world import FIRST_NEWCOMER, World

STORM = Plan(nodes=6, rounds=12, round_seconds=10.0, spread=4.0, faults=PROFILES["storm"])
CALM = Plan(nodes=3, topology="full", rounds=40, round_seconds=10.0, overlap=False)
SEEDS = 40  # of each topology


class Endless(Plan):
    """Training ends nowhere: what a node hears after its last round it cannot count any more."""

    def drawn_policy(self, random: Random) -> Policy:
        return replace(super().drawn_policy(random), limit=0)


@pytest.mark.slow
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_storms_have_no_findings(topology: str) -> None:
    """Nor does an edge end at one end only, unless an end has lost its state. The seeds are fresh ones each time."""
    plan, first = replace(STORM, topology=topology), secrets.randbelow(2**31)
    edges = 0
    for outcome in play_here(plan, range(first, first + SEEDS), cores()):
        assert outcome.finding is None, (plan, outcome.seed, outcome.finding)
        assert outcome.unreasoned == 0, (plan, outcome.seed)
        edges += outcome.edges
    assert edges > 500


def test_a_node_that_has_done_all_may_be_stopped_before_its_trainer_is_back() -> None:
    """It was killed after its last round, started again, and stopped at once."""
    assert play(replace(STORM, topology="base-k"), 2049768758).finding is None


@pytest.mark.slow
def test_a_receipt_that_comes_on_a_full_disk_may_be_lost_by_a_crash() -> None:
    """The other end has counted the edge by then: it counts there only, and why is known."""
    storm = PROFILES["storm"]
    plan = Plan(nodes=8, topology="full", round_seconds=10.0, faults=storm, spread=storm.spread)
    outcome = play(plan, 12000409)
    assert outcome.finding is None
    assert outcome.one_sided > outcome.unreasoned == 0


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["full", "ring", "one-peer-exponential", "base-k"])
def test_without_crashes_of_daemons_every_edge_counts_at_both_ends(topology: str) -> None:
    faults = replace(PROFILES["storm"], kinds=GENTLE)
    edges = 0
    for seed in range(8):
        outcome = play(Endless(**{**vars(STORM), "topology": topology, "faults": faults}), seed)
        assert outcome.finding is None, (seed, outcome.finding)
        assert outcome.one_sided == 0, seed
        edges += outcome.edges
    assert edges > 100


@pytest.mark.slow
def test_storms_over_the_real_kernel_keep_the_mean_and_learn() -> None:
    for seed in range(10):
        outcome = play(replace(STORM, topology="full", payload="least-squares", rounds=20), seed)
        assert outcome.finding is None, (seed, outcome.finding)
        assert outcome.curve[-1][1].loss < outcome.curve[1][1].loss / 2, seed


def test_a_run_is_a_function_of_its_seed() -> None:
    one, again, other = play(STORM, 7), play(STORM, 7), play(STORM, 8)
    assert combined_trace([one]) == combined_trace([again])
    assert replace(one, seconds=0.0) == replace(again, seconds=0.0)
    assert one.trace != other.trace


def test_who_watches_hears_of_every_round_and_changes_nothing() -> None:
    heard: list[tuple[float, int]] = []
    unwatched = list(play_here(STORM, [7, 8], workers=1))
    watched = list(play_here(STORM, [7, 8], workers=1, told=lambda seconds, steps: heard.append((seconds, steps))))
    assert combined_trace(watched) == combined_trace(unwatched)
    assert heard == sorted(heard)
    assert len(heard) > 2 * STORM.rounds
    assert heard[-1][1] == sum(outcome.steps for outcome in watched)


@pytest.mark.slow
def test_workers_find_what_one_process_finds_in_the_order_of_the_seeds() -> None:
    seeds = range(5, 9)
    together = list(play_here(replace(STORM, rounds=2), seeds, workers=2))
    assert [outcome.seed for outcome in together] == list(seeds)
    assert combined_trace(together) == combined_trace(list(play_here(replace(STORM, rounds=2), seeds, workers=1)))


def test_nodes_of_equal_pace_mix_every_round() -> None:
    world = World(replace(CALM, nodes=4), 3)
    world.run()
    for host in world.hosts:
        view = host.node.view(host.clock())
        assert view.round > 30
        assert view.mixes >= view.round - 3, view
        assert min(peer.mixes for peer in view.peers) >= view.round - 4, view


def test_a_slow_node_mixes_with_everyone_and_holds_nobody_up() -> None:
    world = World(replace(CALM, rounds=60), 5)
    world.hosts[2].pace = 20 * CALM.round_seconds
    for host in world.hosts[:2]:
        host.pace = CALM.round_seconds
    world.run()
    fast, slow = (host.node.view(host.clock()) for host in (world.hosts[0], world.hosts[2]))
    assert fast.round > 40  # of the 60 that it could train alone
    assert slow.mixes >= slow.round - 1 > 0 or slow.mixes >= 2
    assert all(peer.mixes for peer in slow.peers)


def test_a_vanished_node_costs_the_others_little() -> None:
    world = World(CALM, 11)
    world.agenda.at(100.0, world.hosts[2].kill)
    world.run()
    view = world.hosts[0].node.view(world.hosts[0].clock())
    assert view.round > 30
    assert {peer.peer: peer.state for peer in view.peers} == {"n1": "alive", "n2": "gone"}


@pytest.mark.slow
def test_a_newcomer_never_lowers_the_norm_of_the_mesh() -> None:
    """It adopts; mixed as it starts, with B = 0, it would pull all products towards zero."""
    faults = replace(PROFILES["none"], newcomers=0.5)
    plan = Plan(nodes=6, topology="full", rounds=30, round_seconds=10.0, payload="least-squares", faults=faults)
    for seed in range(3):
        outcome = play(plan, seed)
        before, *after = [measure.norm for time, measure in outcome.curve if time > FIRST_NEWCOMER * plan.span]
        assert outcome.adoptions == 3
        assert min(after) > before, (seed, before, after)


@pytest.mark.slow
def test_one_static_address_is_enough_to_know_a_mesh_of_sixty_four() -> None:
    world = World(Plan(nodes=64, topology="random-regular", rounds=6, round_seconds=60.0), 1)
    world.run()
    assert {len(host.node.members) for host in world.hosts} == {63}
    hellos = world.network.hellos / len(world.hosts) / world.plan.rounds
    assert hellos < 16  # a node and round: of its six neighbours and a few others, not of all


def test_a_trainer_adopts_and_mixes_one_after_the_other() -> None:
    """In this seed a node is asked to leave, and so to mix, while it adopts."""
    outcome = play(replace(STORM, topology="one-peer-exponential", spread=1.0), 50041)
    assert outcome.finding is None, outcome.finding


@pytest.mark.slow
def test_a_storm_over_a_mesh_too_large_for_one_lan() -> None:
    """Its nodes know static addresses; seed 4 clones a disk, and with it those."""
    outcome = play(replace(STORM, nodes=40, topology="auto", rounds=6), 4)
    assert outcome.finding is None, outcome.finding
    assert dict(outcome.struck)["clone"] > 0
