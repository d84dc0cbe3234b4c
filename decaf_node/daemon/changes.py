"""What has changed since the last look: the phase, members, and what is wrong. No clock, no sockets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from decaf_node.daemon.reports import AlertReport, PhaseReport, ProblemReport
from decaf_node.mesh.view import NodeView, PeerView


class Changes:
    """Remembers what was seen."""

    def __init__(self) -> None:
        self._phase = ""
        self._peers: dict[str, tuple[object, ...]] = {}
        self._problems: dict[str, tuple[str, ...]] = {}

    def look(self, view: NodeView, alerts: Sequence[AlertReport]) -> Iterator[PhaseReport | PeerView | ProblemReport]:
        """Yield what is new. alerts: what is wrong, one of each place."""
        if view.phase != self._phase:
            self._phase = view.phase
            yield PhaseReport(view.phase, view.round)
        before, self._peers = self._peers, {peer.peer: _told_of(peer) for peer in view.peers}
        yield from (peer for peer in view.peers if before.get(peer.peer) != self._peers[peer.peer])
        yield from self._problems_since(alerts)

    def _problems_since(self, alerts: Sequence[AlertReport]) -> Iterator[ProblemReport]:
        before, self._problems = self._problems, {alert.place: _worth_telling(alert) for alert in alerts}
        yield from (ProblemReport(place, "") for place in before if place not in self._problems)
        for alert in alerts:
            if before.get(alert.place) != self._problems[alert.place]:
                yield ProblemReport(alert.place, alert.words, alert)


def _told_of(peer: PeerView) -> tuple[object, ...]:
    """What of a member is worth a word: its round and when it was heard change all the time."""
    return peer.name, peer.state, peer.neighbour, peer.mixes, peer.weight, peer.clip_factor, peer.problem


def _worth_telling(alert: AlertReport) -> tuple[str, ...]:
    """What of a problem is worth a word, without the numbers: a minute more is no other problem."""
    return alert.id, alert.severity, re.sub(r"[0-9]+", "", alert.words)
