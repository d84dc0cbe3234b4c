"""Reports as JSON, for programs and for the page: the same names in both, those of ``monitor.proto``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from decaf_node.daemon.reports import EventReport


def event_kind(event: EventReport) -> str:
    """Return state, round, phase, peer, problem, gap or heartbeat."""
    return type(event.what).__name__.removesuffix("Report").lower()


def event_document(event: EventReport) -> dict[str, Any]:
    """Return the document of an event: what it holds is under its kind."""
    kind = event_kind(event)
    return {
        "event": kind,
        "instance": event.instance,
        "sequence": event.sequence,
        "time": event.time,
        kind: asdict(event.what),
    }


def json_line(document: Any) -> str:
    """Return ``document`` as JSON without line breaks; numbers that JSON does not have become null."""
    return json.dumps(plain(document), ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """Return ``value`` with null for the numbers that JSON does not have."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case _:
            return value
