"""The graph of a simulated mesh once everyone knows everyone."""

from __future__ import annotations

from decaf_node.mesh.topology import graph_of
from decaf_node.sim.plan import Plan


def edges(plan: Plan) -> list[tuple[int, int]]:
    """Return who mixes with whom in any turn: pairs of node numbers, the lower first, sorted."""
    place = {name: number for number, name in enumerate(plan.names)}
    graph = graph_of(plan.topology, plan.names)
    pairs = ((place[one], place[other]) for one in plan.names for other in graph.candidates(one))
    return sorted((one, other) for one, other in pairs if one < other)
