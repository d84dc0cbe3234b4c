"""The graph of the mesh to and from ``monitor.proto``; see ``report_wire`` for what may come."""

from __future__ import annotations

from decaf_node.daemon.report_wire import node_id, text
from decaf_node.daemon.reports import LinkReport, MemberReport, TopologyReport
from decaf_node.v1 import monitor_pb2 as pb


def topology_to_wire(report: TopologyReport) -> pb.GetTopologyReply:
    """Return the message for the graph as a whole."""
    return pb.GetTopologyReply(
        graph=report.graph,
        topology=report.topology,
        node=report.node,
        members=map(_member_to_wire, report.members),
        links=map(_link_to_wire, report.links),
        link_count=report.link_count,
        turns=report.turns,
    )


def topology_from_wire(message: pb.GetTopologyReply) -> TopologyReport:
    """Return the graph in ``message``."""
    return TopologyReport(
        graph=text(message.graph),
        topology=text(message.topology),
        node=node_id(message.node),
        members=tuple(map(_member_from_wire, message.members)),
        links=tuple(map(_link_from_wire, message.links)),
        link_count=message.link_count,
        turns=message.turns,
    )


def _member_to_wire(member: MemberReport) -> pb.Member:
    return pb.Member(node=member.node, name=member.name, state=member.state, round=member.round, degree=member.degree)


def _member_from_wire(message: pb.Member) -> MemberReport:
    return MemberReport(
        node=node_id(message.node),
        name=text(message.name),
        state=text(message.state),
        round=message.round,
        degree=message.degree,
    )


def _link_to_wire(link: LinkReport) -> pb.Link:
    return pb.Link(one=link.one, other=link.other, weight=link.weight, current=link.current)


def _link_from_wire(message: pb.Link) -> LinkReport:
    return LinkReport(
        one=node_id(message.one),
        other=node_id(message.other),
        weight=message.weight if message.HasField("weight") else None,
        current=message.current,
    )
