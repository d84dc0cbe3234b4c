"""Reports (plain values) to and from the messages of ``monitor.proto``; used by the monitor and by its client.

A report may come from another device: what cannot be printed is taken out of its texts, and a report that cannot be
raises BadData ``monitor.bad-report``.
"""

from __future__ import annotations

from decaf_node.daemon.machine_wire import machine_from_wire, machine_to_wire
from decaf_node.daemon.reports import EdgeReport, PeerReport, PrivacyReport, RoundReport, StatusReport, TrainerReport
from decaf_node.daemon.texts import NODE_ID, readable
from decaf_node.errors import BadData
from decaf_node.v1 import monitor_pb2 as pb

SECONDS_LIMIT = 1e11  # the year 5138, or so long: more, no calendar can print
TEXT_LIMIT = 4000


def round_to_wire(report: RoundReport) -> pb.Round:
    """Return the message for one row of the history."""
    return pb.Round(
        round=report.round,
        time=report.time,
        steps=report.steps,
        loss=report.loss,
        train_seconds=report.train_seconds,
        exchange_seconds=report.exchange_seconds,
        mix_seconds=report.mix_seconds,
        edges=map(_edge_to_wire, report.edges),
        tail=report.tail,
        interference=report.interference,
        norm=report.norm,
        consensus_distance=report.consensus_distance,
        sent_bytes=report.sent_bytes,
        received_bytes=report.received_bytes,
        evaluation_loss=report.evaluation_loss,
        evaluation_accuracy=report.evaluation_accuracy,
        saved=report.saved,
    )


def round_from_wire(message: pb.Round) -> RoundReport:
    """Return the row of the history in ``message``."""
    return RoundReport(
        round=message.round,
        time=seconds(message.time),
        steps=message.steps,
        loss=message.loss,
        train_seconds=seconds(message.train_seconds),
        exchange_seconds=seconds(message.exchange_seconds),
        mix_seconds=seconds(message.mix_seconds),
        edges=tuple(map(_edge_from_wire, message.edges)),
        tail=message.tail,
        interference=message.interference,
        norm=message.norm,
        consensus_distance=message.consensus_distance if message.HasField("consensus_distance") else None,
        sent_bytes=message.sent_bytes,
        received_bytes=message.received_bytes,
        evaluation_loss=message.evaluation_loss if message.HasField("evaluation_loss") else None,
        evaluation_accuracy=message.evaluation_accuracy if message.HasField("evaluation_accuracy") else None,
        saved=message.saved,
    )


def _edge_to_wire(edge: EdgeReport) -> pb.Edge:
    return pb.Edge(node=edge.node, weight=edge.weight, distance=edge.distance, clip_factor=edge.clip_factor)


def _edge_from_wire(message: pb.Edge) -> EdgeReport:
    factor = message.clip_factor if message.HasField("clip_factor") else None
    return EdgeReport(node_id(message.node), message.weight, message.distance, factor)


def peer_to_wire(report: PeerReport) -> pb.Peer:
    """Return the message for one member."""
    return pb.Peer(
        node=report.node,
        name=report.name,
        state=report.state,
        addresses=report.addresses,
        neighbour=report.neighbour,
        round=report.round,
        heard_seconds=report.heard_seconds,
        weight=report.weight,
        distance=report.distance,
        plain_distance=report.plain_distance,
        harm=report.harm,
        clip_factor=report.clip_factor,
        mixes=report.mixes,
        problem=report.problem,
        loss=report.loss,
    )


def peer_from_wire(message: pb.Peer) -> PeerReport:
    """Return the member in ``message``."""
    return PeerReport(
        node=node_id(message.node),
        name=text(message.name),
        state=text(message.state),
        addresses=tuple(map(text, message.addresses)),
        neighbour=message.neighbour,
        round=message.round,
        heard_seconds=seconds(message.heard_seconds) if message.HasField("heard_seconds") else None,
        weight=message.weight if message.HasField("weight") else None,
        distance=message.distance if message.HasField("distance") else None,
        plain_distance=message.plain_distance if message.HasField("plain_distance") else None,
        harm=message.harm if message.HasField("harm") else None,
        clip_factor=message.clip_factor if message.HasField("clip_factor") else None,
        mixes=message.mixes,
        problem=text(message.problem),
        loss=message.loss if message.HasField("loss") else None,
    )


def status_to_wire(report: StatusReport) -> pb.GetStatusReply:
    """Return the message for the node at a glance."""
    return pb.GetStatusReply(
        node=report.node,
        name=report.name,
        mesh=report.mesh,
        version=report.version,
        instance=report.instance,
        phase=report.phase,
        problem=report.problem,
        round=report.round,
        saved_round=report.saved_round,
        mixes=report.mixes,
        degree=report.degree,
        waiting_for=report.waiting_for,
        uptime_seconds=report.uptime_seconds,
        resident_bytes=report.resident_bytes,
        address=report.address,
        schema=report.schema,
        trainer=_trainer_to_wire(report.trainer),
        last_round=None if report.last_round is None else round_to_wire(report.last_round),
        sent_bytes=report.sent_bytes,
        received_bytes=report.received_bytes,
        state_folder=report.state_folder,
        adapter_folder=report.adapter_folder,
        privacy=None if report.privacy is None else _privacy_to_wire(report.privacy),
        machine=None if report.machine is None else machine_to_wire(report.machine),
        why_paused=report.why_paused,
    )


def status_from_wire(message: pb.GetStatusReply) -> StatusReport:
    """Return the node at a glance in ``message``."""
    return StatusReport(
        node=node_id(message.node),
        name=text(message.name),
        mesh=text(message.mesh),
        version=text(message.version),
        instance=text(message.instance),
        phase=text(message.phase),
        problem=text(message.problem),
        round=message.round,
        saved_round=message.saved_round,
        mixes=message.mixes,
        degree=message.degree,
        waiting_for=tuple(map(node_id, message.waiting_for)),
        uptime_seconds=seconds(message.uptime_seconds),
        resident_bytes=message.resident_bytes,
        address=text(message.address),
        schema=text(message.schema),
        trainer=_trainer_from_wire(message.trainer),
        last_round=round_from_wire(message.last_round) if message.HasField("last_round") else None,
        sent_bytes=message.sent_bytes,
        received_bytes=message.received_bytes,
        state_folder=text(message.state_folder),
        adapter_folder=text(message.adapter_folder),
        privacy=_privacy_from_wire(message.privacy) if message.HasField("privacy") else None,
        machine=machine_from_wire(message.machine) if message.HasField("machine") else None,
        why_paused=text(message.why_paused),
    )


def _privacy_to_wire(report: PrivacyReport) -> pb.Privacy:
    return pb.Privacy(
        epsilon=report.epsilon,
        delta=report.delta,
        spent=report.spent,
        steps=report.steps,
        steps_left=report.steps_left,
        noise=report.noise,
    )


def _privacy_from_wire(message: pb.Privacy) -> PrivacyReport:
    return PrivacyReport(
        epsilon=message.epsilon,
        delta=message.delta,
        spent=message.spent,
        steps=message.steps,
        steps_left=message.steps_left,
        noise=message.noise,
    )


def _trainer_to_wire(report: TrainerReport) -> pb.Trainer:
    return pb.Trainer(
        pid=report.pid,
        state=report.state,
        restarts=report.restarts,
        device=report.device,
        rank=report.rank,
        parameters=report.parameters,
        loss=report.loss,
        step=report.step,
        steps_per_second=report.steps_per_second,
    )


def _trainer_from_wire(message: pb.Trainer) -> TrainerReport:
    return TrainerReport(
        pid=message.pid,
        state=text(message.state),
        restarts=message.restarts,
        device=text(message.device),
        rank=message.rank,
        parameters=message.parameters,
        loss=message.loss if message.HasField("loss") else None,
        step=message.step,
        steps_per_second=message.steps_per_second,
    )


def text(said: str) -> str:
    """Return what can be printed of it."""
    return readable(said[:TEXT_LIMIT])


def node_id(node: str) -> str:
    """Return the node ID, if it is one."""
    if NODE_ID.fullmatch(node) is None:
        raise _bad("a node ID that is none")
    return node


def seconds(value: float) -> float:
    """Return the time, if it can be one."""
    if not 0 <= value <= SECONDS_LIMIT:
        raise _bad("a time that cannot be")
    return value


def _bad(what: str) -> BadData:
    return BadData(
        "monitor.bad-report",
        f"The node reports {what}: it and this command are of versions too far apart; update the older one.",
    )
