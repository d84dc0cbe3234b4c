"""What operators are answered, from ``control.proto``; see ``report_wire`` for what may come."""

from __future__ import annotations

from decaf_node.daemon.answers import EvaluateAnswer, ExportAnswer, LeaveAnswer, ReloadAnswer
from decaf_node.daemon.report_wire import seconds, text
from decaf_node.v1 import control_pb2 as pb


def leave_from_wire(message: pb.LeaveReply) -> LeaveAnswer:
    """Return what came of ``Leave``."""
    return LeaveAnswer(message.saved_round, message.told)


def evaluate_from_wire(message: pb.EvaluateReply) -> EvaluateAnswer:
    """Return what was found."""
    return EvaluateAnswer(
        round=message.round,
        loss=message.loss,
        accuracy=message.accuracy if message.HasField("accuracy") else None,
        examples=message.examples,
        seconds=seconds(message.seconds),
    )


def export_from_wire(message: pb.ExportReply) -> ExportAnswer:
    """Return where the adapter is."""
    return ExportAnswer(text(message.folder), message.round)


def reload_from_wire(message: pb.ReloadReply) -> ReloadAnswer:
    """Return what came of ``Reload``."""
    return ReloadAnswer(
        tuple(map(text, message.applied)), tuple(map(text, message.needs_restart)), message.certificates
    )
