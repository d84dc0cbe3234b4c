"""Alerts to and from ``monitor.proto``; see ``report_wire`` for what may come."""

from __future__ import annotations

from decaf_node.daemon.report_wire import seconds, text
from decaf_node.daemon.reports import AlertReport
from decaf_node.v1 import monitor_pb2 as pb


def alert_to_wire(report: AlertReport) -> pb.Alert:
    """Return the message for something that is wrong."""
    return pb.Alert(
        id=report.id,
        severity=report.severity,
        place=report.place,
        since=report.since,
        sentence=report.sentence,
        remedy=report.remedy,
    )


def alert_from_wire(message: pb.Alert) -> AlertReport:
    """Return what is wrong as ``message`` says it."""
    return AlertReport(
        id=text(message.id),
        severity=text(message.severity),
        place=text(message.place),
        since=seconds(message.since),
        sentence=text(message.sentence),
        remedy=text(message.remedy),
    )
