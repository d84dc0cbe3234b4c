"""The graph of the mesh, as it is told to operators."""

from __future__ import annotations

from decaf_node.daemon.reports import LinkReport, MemberReport, TopologyReport
from decaf_node.mesh.outline import outline_of
from decaf_node.mesh.topology import Graph, in_use
from decaf_node.mesh.view import NodeView

LINKS_AT_MOST = 16384  # a full graph of a thousand members has half a million, which nobody could look at


def topology_report(topology: str, graph: Graph, turn: int, me: str, name: str, view: NodeView) -> TopologyReport:
    """Return the graph as a whole. For a thousand members it takes a while: it may run in a thread.

    topology: the setting; turn: as ``Node.graph`` returns it; view: what the node ``me`` shows at the same time
    """
    outline = outline_of(graph, me, turn, LINKS_AT_MOST)
    weights = {frozenset((me, peer.peer)): peer.weight for peer in view.peers}
    standing = {peer.peer: (peer.name, peer.state, peer.round) for peer in view.peers}
    standing[me] = name, "alive", view.round
    return TopologyReport(
        graph=in_use(topology, len(graph.members)),
        topology=topology,
        node=me,
        members=tuple(MemberReport(node, *standing[node], outline.degrees.get(node, 0)) for node in sorted(standing)),
        links=tuple(
            LinkReport(link.one, link.other, weights.get(frozenset((link.one, link.other))), link.current)
            for link in outline.links
        ),
        link_count=outline.count,
        turns=graph.turns,
    )
