"""What operators are answered when they have something done: plain values with the fields of ``control.proto``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ResumeAnswer:
    """phase: the one now; why_paused: what holds the node all the same, if anything does."""

    phase: str
    why_paused: str


@dataclass(frozen=True)
class LeaveAnswer:
    """saved_round: the last durable one; told: members that have heard the goodbye."""

    saved_round: int
    told: int


@dataclass(frozen=True)
class EvaluateAnswer:
    """See ``EvaluateReply`` in control.proto."""

    round: int
    loss: float
    accuracy: float | None
    examples: int
    seconds: float


@dataclass(frozen=True)
class ExportAnswer:
    """folder: with the adapter; round: the saved one that it is of."""

    folder: str
    round: int


@dataclass(frozen=True)
class ReloadAnswer:
    """Settings as ``section.key``: those that count from now on, and those that count only after a restart."""

    applied: tuple[str, ...]
    needs_restart: tuple[str, ...]
    certificates: bool

    @property
    def sentence(self) -> str:
        """Return what has come of it, for a person."""
        parts = ["The certificates are read anew."] if self.certificates else []
        if self.applied:
            parts.append(f"From now on counts: {', '.join(self.applied)}.")
        if self.needs_restart:
            parts.append(f"Restart the daemon for: {', '.join(self.needs_restart)}.")
        if not (self.applied or self.needs_restart):
            parts.append("The settings are as they were.")
        return " ".join(parts)
