"""The graph as a whole: every link once, whatever the graph, and no more of them than one asks for."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from decaf_node.mesh.outline import Link, outline_of
from decaf_node.mesh.topology import graph_of, in_use
from decaf_node.settings import MeshSection

TOPOLOGIES = get_args(MeshSection.model_fields["topology"].annotation)
EVERYTHING = 10**6
members = st.lists(st.text("ABCDEFGH", min_size=1, max_size=4), unique=True, min_size=1, max_size=16)


@given(members, st.sampled_from(TOPOLOGIES), st.integers(0, 9))
def test_every_link_is_there_once_and_the_same_at_every_node(names: list[str], topology: str, turn: int) -> None:
    graph = graph_of(topology, names)
    outlines = [outline_of(graph, me, turn, EVERYTHING) for me in names]
    links = {(link.one, link.other): link.current for link in outlines[0].links}
    for outline in outlines:
        assert len(outline.links) == outline.count == len(links)
        assert {(link.one, link.other): link.current for link in outline.links} == links
        assert outline.degrees == {name: len(graph.candidates(name)) for name in names}
    assert links.keys() == {(a, b) for a in names for b in graph.candidates(a) if a < b}
    published = turn > 0 or not graph.varies
    current = {(a, b) for a in names for b in graph.neighbours(a, turn) if a < b and published}
    assert {pair for pair, now in links.items() if now} == current


def test_our_own_links_come_first_and_the_rest_is_counted() -> None:
    outline = outline_of(graph_of("full", "ABCD"), "C", 0, 4)
    assert outline.links == (
        *(Link("A", "C", True), Link("B", "C", True), Link("C", "D", True)),
        Link("A", "B", True),
    )
    assert (outline.count, outline.degrees["A"]) == (6, 3)


def test_what_auto_means() -> None:
    assert [in_use("auto", 8), in_use("auto", 9), in_use("ring", 9)] == ["full", "random-regular", "ring"]
