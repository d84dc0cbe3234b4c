"""Members tell each other of members: what that costs a node, and how soon everyone knows, as the mesh grows."""

from __future__ import annotations

from math import log2

import pytest

from decaf_node.mesh import probes
from decaf_node.mesh.rumours import KNOWN_AT_MOST, NEWS_AT_MOST
from tests.mesh.crowd import Count, Crowd

SIZES = [16, 64, pytest.param(256, marks=pytest.mark.slow), pytest.param(1024, marks=pytest.mark.e2e)]
DEGREE = 2  # of a ring


def grown(count: int) -> tuple[Crowd, list[str]]:
    """Return nodes that were founded together, and know each other."""
    crowd = Crowd(seed=1)
    names = crowd.found(count)
    took = crowd.intervals_until(crowd.agrees, most=30)
    print(f"n={count}: founded, each with one address, in {took} intervals")
    assert took <= 2.5 * log2(count)
    crowd.run(10)
    crowd.count = Count()
    return crowd, names


@pytest.mark.parametrize("n", SIZES)
def test_what_a_member_costs_and_how_soon_all_know(n: int) -> None:
    crowd, names = grown(n)
    crowd.run(10)
    quiet = crowd.count
    hellos = quiet.hellos / (10 * n)
    print(f"n={n}: quiet: {hellos:.2f} hellos a node and interval, {quiet.rumours / quiet.messages:.2f} rumours each")
    assert hellos <= (probes.NEAR_ALL if n <= probes.NEAR_ALL else DEGREE + probes.FAR_PROBES + 0.5)
    assert quiet.rumours <= 0.01 * quiet.messages
    assert crowd.agrees()

    crowd.count = Count()
    crowd.join("newcomer", names[n // 2])
    joined = crowd.intervals_until(lambda: crowd.knows("newcomer"), most=20)
    complete = joined + crowd.intervals_until(crowd.agrees, most=20)
    crowd.leave(names[3])
    left = crowd.intervals_until(lambda: crowd.knows(names[3], here=False), most=30)
    crowd.crash(names[5])
    crashed = crowd.intervals_until(lambda: crowd.knows(names[5], here=False), most=40)
    crowd.join(names[5], names[0])
    back = crowd.intervals_until(crowd.agrees, most=20)
    print(
        f"n={n}: intervals until all know: join {joined} (it knows all: {complete}), goodbye {left}, crash {crashed},"
    )
    busy = crowd.count
    print(f"        back {back}; {busy.rumours / busy.messages:.2f} rumours a message, {busy.most} at most")
    assert max(joined, complete, back) <= log2(n)
    assert left <= 3 + log2(n)
    assert crashed <= 6 + 2 * log2(n)
    assert busy.most <= NEWS_AT_MOST + 1 + KNOWN_AT_MOST
    assert busy.rumours <= 3 * busy.messages


@pytest.mark.parametrize("n", [16, 64, pytest.param(256, marks=pytest.mark.slow)])
def test_two_halves_that_were_cut_find_each_other_and_nobody_takes_another_for_dead(n: int) -> None:
    crowd, names = grown(n)
    halves = set(names[::2]), set(names[1::2])
    for name in halves[1]:
        crowd.people[name].side = 1

    def apart() -> bool:
        return all(crowd.here(name) == half - {name} for half in halves for name in half)

    took = crowd.intervals_until(apart, most=60)
    crowd.run(20)
    crowd.count = Count()
    for person in crowd.people.values():
        person.side = 0
    healed = 0
    while not crowd.agrees():
        healed += 1
        assert healed < 20
        crowd.run(1)
        for half in halves:
            assert all(half - {name} <= crowd.here(name) for name in half), "a rumour has killed a member"
    load = crowd.count.hellos / n / healed
    print(
        f"n={n}: cut in two: both know after {took} intervals; healed after {healed}, {load:.1f} hellos a node in each"
    )
    assert crowd.agrees()
    assert load <= 2 * probes.NEAR_ALL


def test_who_starts_again_at_once_is_known_by_its_new_life() -> None:
    crowd, names = grown(64)
    for name in names[:8]:
        crowd.crash(name)
    crowd.run(20)
    for name in names[:8]:
        crowd.join(name, names[20])
    crowd.run(5)
    for name in names[:8]:
        crowd.join(name, names[21])  # without a goodbye
    crowd.intervals_until(crowd.agrees, most=10)
    crowd.run(20)
    assert crowd.agrees()
    assert all(crowd.people[name].node.news().incarnation > 0 for name in names[:8])
