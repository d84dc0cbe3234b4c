"""Who is whose neighbour, and when: the same answer at every node."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.mesh import matchings
from decaf_node.mesh.fixed_graphs import RINGS
from decaf_node.mesh.topology import Graph, graph_of, longest_period
from decaf_node.settings import MeshSection
from tests.mesh import mixing

TOPOLOGIES = get_args(MeshSection.model_fields["topology"].annotation)
members = st.lists(st.text("ABCDEFGH", min_size=1, max_size=4), unique=True, min_size=1, max_size=24)
topologies = st.sampled_from(TOPOLOGIES)


def sized(topology: str, size: int) -> Graph:
    """Return the graph of members 000, 001, ..."""
    return graph_of(topology, [f"{place:03}" for place in range(size)])


def places(topology: str, size: int, here: int, turn: int = 0) -> list[int]:
    return [int(peer) for peer in sized(topology, size).neighbours(f"{here:03}", turn)]


@given(members, topologies)
def test_whatever_the_order_of_members_it_is_one_graph(names: list[str], topology: str) -> None:
    assert graph_of(topology, names) is graph_of(topology, reversed([*names, names[0]]))


@given(members, topologies)
def test_neighbours_are_mutual_sorted_and_never_oneself(names: list[str], topology: str) -> None:
    graph = graph_of(topology, names)
    for me in names:
        union: set[str] = set()
        for turn in range(graph.turns):
            around = graph.neighbours(me, turn)
            union.update(around)
            assert list(around) == sorted({*around} - {me})
            assert len(around) <= graph.capacity(me)
            assert all(me in graph.neighbours(peer, turn) for peer in around)
            assert all(graph.weight(me, peer, turn) == graph.weight(peer, me, turn) for peer in around)
            assert around == graph.neighbours(me, turn + graph.turns)
        assert graph.candidates(me) == tuple(sorted(union))


@given(members, topologies)
def test_everyone_is_reached_over_a_period(names: list[str], topology: str) -> None:
    graph = graph_of(topology, names)
    seen, border = {names[0]}, [names[0]]
    while border:
        further = {*graph.candidates(border.pop())} - seen
        seen |= further
        border += further
    assert seen == {*names}


@given(members, topologies)
def test_every_turn_keeps_the_mean(names: list[str], topology: str) -> None:
    graph = graph_of(topology, names)
    for turn in range(graph.turns):
        matrix = mixing.of_turn(graph, turn)
        assert (matrix >= -1e-12).all()
        assert np.allclose(matrix, matrix.T, atol=0)
        assert np.allclose(matrix.sum(axis=0), 1.0, atol=1e-12)


@pytest.mark.parametrize(
    ("topology", "most"),
    [
        ("ring", 2),
        ("torus", 4),
        ("exponential", 11),
        ("random-regular", 2 * RINGS),
        ("one-peer-exponential", 1),
        ("base-k", 1),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 23, 48, 64])
def test_degrees_are_bounded(topology: str, most: int, size: int) -> None:
    graph = sized(topology, size)
    assert max(graph.capacity(member) for member in graph.members) <= most


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_one_has_nobody_and_two_have_each_other(topology: str) -> None:
    assert places(topology, 1, 0) == []
    assert places(topology, 2, 0) == [1]


def test_rings_tori_and_exponential_graphs() -> None:
    assert places("ring", 5, 0) == [1, 4]
    assert places("full", 3, 1) == [0, 2]
    assert places("torus", 12, 0) == [1, 3, 4, 8]  # 3 rows of 4
    assert places("torus", 6, 0) == [1, 2, 3]  # 2 rows of 3
    assert places("torus", 7, 3) == places("ring", 7, 3)  # a prime
    assert places("exponential", 16, 0) == [1, 2, 4, 8, 12, 14, 15]
    assert places("exponential", 3, 0) == [1, 2]


@pytest.mark.parametrize("size", [*range(1, 70), 127, 128, 192])
def test_the_periods_are_known_without_building_the_graphs(size: int) -> None:
    assert matchings.one_peer_period(size) == len(matchings.one_peer(size))
    assert matchings.base_two_period(size) == len(matchings.base_two(size))


def test_the_longest_period_of_up_to_so_many_members() -> None:
    assert longest_period("ring", 9) == 0
    assert longest_period("base-k", 6) == max(graph_of("base-k", map(str, range(size))).turns for size in range(1, 7))


def test_partners_of_one_peer() -> None:
    assert [places("one-peer-exponential", 8, 5, turn) for turn in range(3)] == [[4], [7], [1]]
    assert [places("one-peer-exponential", 6, 1, turn) for turn in range(6)] == [[0], [2], [0], [4], [0], [4]]
    assert [places("one-peer-exponential", 3, 0, turn) for turn in range(4)] == [[1], [], [], [2]]


def test_partners_and_weights_of_base_k() -> None:
    graph = sized("base-k", 3)
    assert [places("base-k", 3, 0, turn) for turn in range(graph.turns)] == [[1], [2], [1]]
    assert graph.weight("000", "002", 1) == 2 / 3
    assert graph.weight("000", "001", 2) == 1 / 2
    assert graph.weight("001", "002", 1) is None
    assert sized("base-k", 6).turns == 4  # two blocks of three, then across


@pytest.mark.parametrize("size", range(2, 65))
def test_a_period_of_base_k_averages_exactly(size: int) -> None:
    graph = sized("base-k", size)
    assert graph.turns <= 2 * size.bit_length() - 1
    assert np.allclose(mixing.of_period(graph), 1.0 / size, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [2, 4, 8, 16, 32, 64])
def test_any_period_of_one_peer_averages_powers_of_two_exactly(size: int) -> None:
    graph = sized("one-peer-exponential", size)
    for start in range(graph.turns):
        assert np.allclose(mixing.of_period(graph, start), 1.0 / size, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("topology", "size", "expected"),
    [
        ("ring", 16, 0.949),
        ("torus", 16, 0.600),
        ("exponential", 16, 0.500),
        ("ring", 64, 0.997),
        ("torus", 64, 0.883),
        ("exponential", 64, 0.667),
    ],
)
def test_contraction_is_what_theory_says(topology: str, size: int, expected: float) -> None:
    assert mixing.factor(sized(topology, size)) == pytest.approx(expected, abs=1e-3)


@given(members, st.text("ABCDEFGH", min_size=5, max_size=5))
def test_a_join_concerns_few_on_hashed_rings(names: list[str], joins: str) -> None:
    before, after = graph_of("random-regular", names), graph_of("random-regular", [*names, joins])
    moved = [name for name in names if before.neighbours(name) != after.neighbours(name)]
    assert len(moved) <= 2 * RINGS
    assert {*after.neighbours(joins)} <= {*moved}


@pytest.mark.parametrize(("size", "same_as"), [(8, "full"), (9, "random-regular")])
def test_auto_is_full_for_a_few_and_sparse_for_many(size: int, same_as: str) -> None:
    assert sized("auto", size) is sized(same_as, size)


def test_an_unknown_topology_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="star"):
        graph_of("star", "ab")
