"""Metropolis weights on random graphs: symmetric, doubly stochastic, also with failed edges."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.mesh.weights import metropolis_weights, share

Graph = tuple[int, frozenset[tuple[int, int]], frozenset[tuple[int, int]]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Return the number of nodes, the edges, and those of them that failed."""
    size = draw(st.integers(1, 9))
    pairs = list(itertools.combinations(range(size), 2))
    edges = draw(st.frozensets(st.sampled_from(pairs))) if pairs else frozenset()
    failed = draw(st.frozensets(st.sampled_from(sorted(edges)))) if edges else frozenset()
    return size, edges, failed


def matrix(graph: Graph) -> list[list[float]]:
    size, edges, failed = graph
    degree = [sum(node in edge for edge in edges) for node in range(size)]
    rows = []
    for node in range(size):
        others = {other: degree[other] for other in range(size) if tuple(sorted((node, other))) in edges - failed}
        weights = metropolis_weights(degree[node], {str(other): d for other, d in others.items()})
        rows.append([weights.own if other == node else weights.of.get(str(other), 0.0) for other in range(size)])
    return rows


@given(graphs())
def test_symmetric_and_doubly_stochastic_even_where_edges_failed(graph: Graph) -> None:
    rows = matrix(graph)
    for i, j in itertools.product(range(len(rows)), repeat=2):
        assert rows[i][j] == rows[j][i]
        assert rows[i][j] >= 0.0
    for row in rows:
        assert sum(row) == pytest.approx(1.0, abs=1e-12)


@given(graphs())
def test_a_failed_edge_gives_its_weight_back_to_self_and_changes_no_other(graph: Graph) -> None:
    size, edges, failed = graph
    whole, broken = matrix((size, edges, frozenset())), matrix(graph)
    for i, j in itertools.permutations(range(size), 2):
        if tuple(sorted((i, j))) not in failed:
            assert broken[i][j] == whole[i][j]
    for i in range(size):
        lost = sum(whole[i][j] - broken[i][j] for j in range(size) if j != i)
        assert broken[i][i] == pytest.approx(whole[i][i] + lost, abs=1e-12)


def test_two_nodes_have_one_half_each() -> None:
    weights = metropolis_weights(1, {"b": 1})
    assert (weights.own, weights.of) == (0.5, {"b": 0.5})


def test_nobody_around_leaves_all_to_oneself() -> None:
    assert metropolis_weights(0, {}).own == 1.0


@given(st.integers(1, 50), st.floats(0.0, 0.999), st.lists(st.integers(0, 60), min_size=1, max_size=50))
def test_with_a_reserve_the_edges_stay_within_what_is_left(degree: int, reserve: float, theirs: list[int]) -> None:
    proposed = [share(degree, other, reserve) for other in theirs[:degree]]
    assert reserve + sum(proposed) <= 1.0 + 1e-12
    assert all(0.0 < weight <= 1.0 for weight in proposed)
