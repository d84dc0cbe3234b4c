"""What watchers are told, to and from ``WatchEvent`` of ``monitor.proto``; see ``report_wire`` for what may come."""

from __future__ import annotations

from decaf_node.daemon.alert_wire import alert_from_wire, alert_to_wire
from decaf_node.daemon.report_wire import (
    peer_from_wire,
    peer_to_wire,
    round_from_wire,
    round_to_wire,
    seconds,
    status_from_wire,
    status_to_wire,
    text,
)
from decaf_node.daemon.reports import (
    Change,
    EventReport,
    GapReport,
    HeartbeatReport,
    PeerReport,
    PhaseReport,
    ProblemReport,
    RoundReport,
    StateReport,
)
from decaf_node.v1 import monitor_pb2 as pb


def event_to_wire(event: EventReport) -> pb.WatchEvent:
    """Return the message for an event."""
    message = pb.WatchEvent(instance=event.instance, sequence=event.sequence, time=event.time)
    match event.what:
        case StateReport() as state:
            message.state.CopyFrom(_state_to_wire(state))
        case RoundReport() as row:
            message.round.CopyFrom(round_to_wire(row))
        case PhaseReport(phase, round):
            message.phase.CopyFrom(pb.PhaseChange(phase=phase, round=round))
        case PeerReport() as peer:
            message.peer.CopyFrom(peer_to_wire(peer))
        case ProblemReport() as problem:
            message.problem.CopyFrom(_problem_to_wire(problem))
        case GapReport(missed):
            message.gap.CopyFrom(pb.Gap(missed=missed))
        case HeartbeatReport():
            message.heartbeat.SetInParent()
    return message


def event_from_wire(message: pb.WatchEvent) -> EventReport | None:
    """Return the event in ``message``; None for a kind that only newer versions know."""
    what = _what(message)
    if what is None:
        return None
    return EventReport(text(message.instance), message.sequence, seconds(message.time), what)


def _what(message: pb.WatchEvent) -> Change | StateReport | GapReport | HeartbeatReport | None:
    match message.WhichOneof("what"):
        case "state":
            return _state_from_wire(message.state)
        case "round":
            return round_from_wire(message.round)
        case "phase":
            return PhaseReport(text(message.phase.phase), message.phase.round)
        case "peer":
            return peer_from_wire(message.peer)
        case "problem":
            return _problem_from_wire(message.problem)
        case "gap":
            return GapReport(message.gap.missed)
        case "heartbeat":
            return HeartbeatReport()
        case _:
            return None


def _state_to_wire(state: StateReport) -> pb.WatchState:
    return pb.WatchState(
        status=status_to_wire(state.status),
        peers=map(peer_to_wire, state.peers),
        problems=map(_problem_to_wire, state.problems),
        heartbeat_seconds=state.heartbeat_seconds,
    )


def _state_from_wire(message: pb.WatchState) -> StateReport:
    return StateReport(
        status_from_wire(message.status),
        tuple(map(peer_from_wire, message.peers)),
        tuple(map(_problem_from_wire, message.problems)),
        seconds(message.heartbeat_seconds),
    )


def _problem_to_wire(problem: ProblemReport) -> pb.Problem:
    alert = None if problem.alert is None else alert_to_wire(problem.alert)
    return pb.Problem(place=problem.place, sentence=problem.sentence, alert=alert)


def _problem_from_wire(message: pb.Problem) -> ProblemReport:
    alert = alert_from_wire(message.alert) if message.HasField("alert") else None
    return ProblemReport(text(message.place), text(message.sentence), alert)
