"""What the doctor finds: one thing that was looked at, and how it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from decaf_node.errors import DecafError

Mark = Literal["well", "warning", "failure", "unseen"]

# In this order: what is wrong in one is often why a later one is.
LAYERS = (
    "settings",
    "files",
    "clock",
    "identity",
    "disk",
    "machine",
    "model",
    "data",
    "daemon",
    "network",
    "peers",
)


EVERYTHING = "all of it"  # the subject, where nothing of a layer was looked at


@dataclass(frozen=True)
class Finding:
    """subject: what was looked at; message: one sentence; remedy: what to type or do; exit_code: of a failure's kind.

    unseen: not looked at, because of something found before; message says of what.
    """

    layer: str
    subject: str
    mark: Mark
    message: str
    reason: str = ""
    remedy: str = ""
    exit_code: int = 0


def well(layer: str, subject: str, message: str) -> Finding:
    """It is as it should be."""
    return Finding(layer, subject, "well", message)


def unseen(layer: str, subject: str, why: str) -> Finding:
    """It was not looked at. why: goes on after "not looked at"."""
    return Finding(layer, subject, "unseen", f"not looked at: {why}")


def warning(layer: str, subject: str, reason: str, message: str, remedy: str = "") -> Finding:
    """The node works all the same."""
    return Finding(layer, subject, "warning", message, reason, remedy)


def failure(layer: str, subject: str, error: DecafError, remedy: str = "") -> Finding:
    """It keeps the node from its work."""
    return Finding(layer, subject, "failure", error.message, error.reason, remedy, error.exit_code)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return them by layer; within a layer as they were found."""
    return tuple(sorted(findings, key=lambda finding: LAYERS.index(finding.layer)))


def first_failure(findings: Iterable[Finding]) -> Finding | None:
    """Return the cause: the failure in the lowest layer."""
    return next((finding for finding in in_order(findings) if finding.mark == "failure"), None)


def failed(findings: Iterable[Finding], *layers: str) -> str:
    """Return the reason of the first failure in these layers; empty if there is none."""
    first = first_failure(finding for finding in findings if finding.layer in layers)
    return first.reason if first is not None else ""
