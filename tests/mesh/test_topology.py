"""Who is whose neighbour: the same answer at every node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.mesh.topology import neighbours

members = st.lists(st.text("ABCDEFGH", min_size=1, max_size=4), unique=True, min_size=1, max_size=12)


@given(members, st.sampled_from(["full", "ring"]))
def test_neighbours_agree_whatever_the_order_of_members(names: list[str], topology: str) -> None:
    of = {name: neighbours(topology, reversed(names), name) for name in names}
    for name in names:
        assert of[name] == neighbours(topology, [other for other in names if other != name], name)
        assert name not in of[name]
        assert list(of[name]) == sorted(set(of[name]))
        assert all(name in of[other] for other in of[name])


@given(members)
def test_a_ring_is_one_circle(names: list[str]) -> None:
    expected = {1: 0, 2: 1}.get(len(names), 2)
    assert all(len(neighbours("ring", names, name)) == expected for name in names)
    seen, here = [min(names)], min(names)
    while further := [other for other in neighbours("ring", names, here) if other not in seen]:
        here = further[0]
        seen.append(here)
    assert sorted(seen) == sorted(names)


@given(members)
def test_full_is_everyone(names: list[str]) -> None:
    assert all(set(neighbours("full", names, name)) == set(names) - {name} for name in names)


def test_examples() -> None:
    assert neighbours("ring", "abcd", "a") == ("b", "d")
    assert neighbours("ring", "ab", "b") == ("a",)
    assert neighbours("ring", "", "a") == ()
    assert neighbours("full", "cba", "b") == ("a", "c")


def test_an_unknown_topology_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="star"):
        neighbours("star", "ab", "a")
