"""Several nodes in a world with faults: what must always hold does, and afterwards they mix again.

``World.check`` looks at every node after every step; here is what only shows over a whole run.
"""

from __future__ import annotations

from functools import partial

import pytest

from decaf_node.mesh import events as ev
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.topology import graph_of
from tests.mesh.world import Host, World

BY_TURNS = ["one-peer-exponential", "base-k"]  # a missed turn comes again late: some neighbour is asked for, not all
TOPOLOGIES = ["full", "ring", *BY_TURNS]
FAULTS_UNTIL = 60.0
QUIET_FROM = 110.0  # cuts are healed and back-offs are over
UNTIL = 170.0
GENTLE = ("trainer", "cut", "break", "pause", "disk", "goodbye")


def build(seed: int, faults: tuple[str, ...]) -> World:
    world = World(seed)
    random = world.random
    names = [chr(97 + number) for number in range(random.randint(2, 4))]
    policy = Policy(
        topology=random.choice(TOPOLOGIES),
        overlap=random.random() < 0.5,
        wait_floor=0.5,
        wait_ceiling=10.0,
        save_every=random.choice([0.0, 20.0]),
        peer_limit=8,
        unsaved_receipts=16,
        adopt_after=random.choice([20.0, 1e6]),
    )
    for name in names:
        late = random.random() < 0.2
        world.add(name, policy, random.choice([2.0, 3.0, 10.0]), random.uniform(30.0, 50.0) if late else 0.0)
    for one in names:
        for other in names:
            if one < other or (
                one > other and (random.random() < 0.8 or policy.topology in BY_TURNS)
            ):  # some are found from one side only
                discover_again_and_again(world, one, other, random.uniform(0.0, 5.0))
    for _ in range(random.randint(0, 12) if faults else 0):
        host = world.hosts[random.choice(names)]
        other = random.choice([name for name in names if name != host.name])
        fault = random.choice(faults)
        world.at(random.uniform(5.0, FAULTS_UNTIL), partial(strike, fault, host, other))
    return world


def discover_again_and_again(world: World, one: str, other: str, time: float) -> None:
    while time < UNTIL:
        world.at(time, partial(world.discover, one, other))
        time += 10.0


def strike(fault: str, host: Host, other: str) -> None:
    world, length = host.world, host.world.random.uniform(0.1, 25.0)
    if fault == "cut":
        world.sever(host.name, other)
        world.at(world.now + length, lambda: world.heal(host.name, other))
    elif fault == "disk":
        host.fill_disk(True)
        world.at(world.now + length, partial(host.fill_disk, False))
    elif not host.up:
        return
    elif fault == "crash":
        host.crash()
        world.at(world.now + length, host.start)
    elif fault == "trainer":
        host.lose_trainer()
    elif fault == "pause":
        host.step(ev.PauseRequested())
        host.later(length, partial(host.step, ev.ResumeRequested()))
    elif fault == "goodbye":
        host.step(ev.PeerLeft(other))
    elif fault == "break" and (stream := host.streams.get(other)) is not None:
        world.break_stream(stream, host.name)
        world.break_stream(stream, other)


def one_sided(world: World) -> tuple[int, int]:
    """Return how many edges counted at one end only, and how many there were; those at the very end are left out."""
    mixed = {
        name: {(edge.peer, edge.own, edge.theirs): edge.weight for _, edge in host.mixed}
        for name, host in world.hosts.items()
    }
    lost = total = 0
    for name, host in world.hosts.items():
        for time, edge in host.mixed:
            if time < UNTIL - 40.0:
                weight = mixed[edge.peer].get((name, edge.theirs, edge.own))
                assert weight in (None, edge.weight), "an edge with two weights"
                total += 1
                lost += weight is None
    return lost, total


def check_that_all_mix_again(world: World) -> None:
    for name, host in world.hosts.items():
        recent = {edge.peer for time, edge in host.mixed if time > QUIET_FROM}
        candidates = {*graph_of(host.policy.topology, world.hosts).candidates(name)}
        enough = recent & candidates if host.policy.topology in BY_TURNS else candidates <= recent
        assert enough, host.node.view(world.now)


@pytest.mark.parametrize("seeds", [range(start, start + 20) for start in range(0, 100, 20)], ids=str)
def test_without_crashes_of_daemons_every_edge_counts_at_both_ends(seeds: range) -> None:
    for seed in seeds:
        world = build(seed, GENTLE)
        world.run(UNTIL)
        check_that_all_mix_again(world)
        lost, total = one_sided(world)
        assert total > 0
        assert lost == 0, f"seed {seed}"


@pytest.mark.slow
def test_with_crashes_hardly_an_edge_counts_at_one_end_only() -> None:
    lost = total = 0
    for seed in range(1000, 1100):
        world = build(seed, (*GENTLE, "crash", "crash"))
        world.run(UNTIL)
        check_that_all_mix_again(world)
        more_lost, more = one_sided(world)
        lost, total = lost + more_lost, total + more
    assert total > 3000
    assert lost / total < 0.001


def test_a_run_is_a_function_of_its_seed() -> None:
    runs = []
    for _ in range(2):
        world = build(7, (*GENTLE, "crash"))
        world.run(UNTIL)
        runs.append({name: host.mixed for name, host in world.hosts.items()})
    assert runs[0] == runs[1]


def test_nodes_of_equal_pace_mix_every_round() -> None:
    world = World(3)
    policy = Policy(wait_floor=0.5, wait_ceiling=40.0, save_every=0.0, overlap=False)
    for name in "abcd":
        world.add(name, policy, 5.0, 0.0)
    for one in "abcd":
        for other in set("abcd") - {one}:
            world.at(0.5, partial(world.discover, one, other))
    world.run(200.0)
    for name, host in world.hosts.items():
        view = host.node.view(world.now)
        assert view.mixes >= view.round - 2, view
        per_peer = [peer.mixes for peer in view.peers]
        assert min(per_peer) >= view.round - 3, (name, per_peer)


def test_a_slow_node_mixes_with_everyone_and_holds_nobody_up() -> None:
    world = World(5)
    policy = Policy(wait_floor=0.5, wait_ceiling=40.0, save_every=0.0, overlap=False)
    for name, pace in (("a", 2.0), ("b", 2.0), ("c", 40.0)):
        world.add(name, policy, pace, 0.0)
    for one in "abc":
        for other in set("abc") - {one}:
            world.at(0.5, partial(world.discover, one, other))
    world.run(600.0)
    fast, slow = world.hosts["a"].node.view(world.now), world.hosts["c"].node.view(world.now)
    assert fast.round > 150  # at least half of what it could do alone
    assert slow.mixes >= 12  # of 14 rounds that it has trained; in its first the mesh was far ahead, and it adopted
    assert all(peer.mixes >= 12 for peer in slow.peers)


def test_a_hung_or_vanished_node_costs_the_others_little() -> None:
    world = World(11)
    policy = Policy(wait_floor=0.5, wait_ceiling=40.0, save_every=0.0, overlap=False)
    for name in "abc":
        world.add(name, policy, 2.0, 0.0)
    for one in "abc":
        for other in set("abc") - {one}:
            world.at(0.5, partial(world.discover, one, other))
    world.run(60.0)
    before = world.hosts["a"].node.view(world.now).round
    world.hosts["c"].crash()
    world.run(160.0)
    view = world.hosts["a"].node.view(world.now)
    assert view.round - before > 25
    assert {peer.peer: peer.state for peer in view.peers} == {"b": "alive", "c": "gone"}
