"""Bytes of snapshots that went over the edges: in total, and since the last round."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bytes:
    """Bytes of snapshots sent and received."""

    sent: int = 0
    received: int = 0


class Traffic:
    """Counts chunks as they pass."""

    def __init__(self) -> None:
        self.total = Bytes()
        self._marked = Bytes()

    def add(self, sent: int = 0, received: int = 0) -> None:
        """Count a chunk."""
        self.total = Bytes(self.total.sent + sent, self.total.received + received)

    def since_mark(self) -> Bytes:
        """Return what passed since the last call of this: a round's share."""
        share = Bytes(self.total.sent - self._marked.sent, self.total.received - self._marked.received)
        self._marked = self.total
        return share
