"""What the daemon says while it runs: one line an event, plain for people, JSON with stable keys on request.

A record may carry fields for machines: ``log.info("sentence", extra=fields(peer=..., round=...))``.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from typing import Any, Literal, TextIO

LEVELS = ("debug", "info", "warning", "error")
LINE_LIMIT = 4000
NAME = "decaf_node"


class PlainFormatter(logging.Formatter):
    """``05:34:27 info     sentence``: local time, level, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line for ``record``, without line breaks or control characters."""
        record.levelname = record.levelname.lower()
        return printable(super().formatMessage(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (seconds since 1970), ``level``, ``part``, ``message``, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for ``record``."""
        document: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "part": record.name.rpartition(".")[2],
            "message": record.getMessage()[:LINE_LIMIT],
            **{key: _finite(value) for key, value in getattr(record, "fields", {}).items()},
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def _finite(value: Any) -> Any:
    """JSON has no infinities and no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def configure(level: str, style: Literal["auto", "plain", "json"], stream: TextIO | None = None) -> None:
    """Send everything that the package logs at ``level`` or above to ``stream`` (default: standard error)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else PlainFormatter())
    logger = logging.getLogger(NAME)
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def set_level(level: str) -> str:
    """Log from this one of ``LEVELS`` on; return the one before."""
    logger = logging.getLogger(NAME)
    before = logging.getLevelName(logger.level).lower()
    logger.setLevel(level.upper())
    return before


def fields(**values: Any) -> dict[str, dict[str, Any]]:
    """Return the ``extra`` of a record that carries ``values`` for machines."""
    return {"fields": values}


def printable(text: str) -> str:
    """Return ``text`` as one line of bounded length: what a peer or a child says must not forge lines of ours."""
    return "".join(character if character.isprintable() else " " for character in text[:LINE_LIMIT])
