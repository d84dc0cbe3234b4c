"""What is known of a node from what it has told: the state, as each event changes it. No clock, no terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

from decaf_node.cli.top.feed import ROUNDS, Lost, News, Past, Wrong
from decaf_node.cli.watching import line_of
from decaf_node.cli.words import clock, short_id
from decaf_node.daemon.reports import (
    EventReport,
    HeartbeatReport,
    PeerReport,
    PhaseReport,
    ProblemReport,
    RoundReport,
    StateReport,
    StatusReport,
)

LINES = 200
TOLD = 20  # of the past rounds, as lines
RATE_SECONDS = 3600.0


class Sight:
    """Takes news, and holds what can be seen. status: None before the first state; lost: why nothing comes."""

    def __init__(self) -> None:
        self.status: StatusReport | None = None
        self.lost: str | None = None
        self._problems: dict[str, ProblemReport] = {}
        self._rounds: dict[int, RoundReport] = {}
        self._lines: dict[Hashable, str] = {}
        self._peers: dict[str, PeerReport] = {}
        self._instance = ""

    def take(self, news: News) -> None:
        """Learn from a piece of news."""
        match news:
            case Past(rounds):
                self._rounds = {row.round: row for row in rounds}
                for row in rounds[-TOLD:]:
                    self._note(EventReport(self._instance, 0, row.time, row))
            case Wrong(alerts):
                self._problems = {alert.place: ProblemReport(alert.place, alert.words, alert) for alert in alerts}
            case Lost(sentence):
                self.lost = sentence
            case EventReport():
                self._hear(news)

    @property
    def rounds(self) -> list[RoundReport]:
        """The rounds that are known, oldest first."""
        return list(self._rounds.values())

    @property
    def problems(self) -> list[ProblemReport]:
        """What is wrong, the worst first."""
        return sorted(self._problems.values(), key=is_warning)

    @property
    def lines(self) -> list[str]:
        """What happened of late, a line each."""
        return list(self._lines.values())

    @property
    def neighbours(self) -> list[PeerReport]:
        """Neighbours and all that were mixed with, those first that are there, then by name."""
        order = ("alive", "late", "gone")
        shown = [peer for peer in self._peers.values() if peer.neighbour or peer.mixes]
        return sorted(shown, key=lambda peer: (order.index(peer.state) if peer.state in order else 3, peer.name))

    @property
    def members(self) -> int:
        """How many others are known and not gone."""
        return sum(peer.state != "gone" for peer in self._peers.values())

    def mixes_an_hour(self) -> Counter[str]:
        """Return how often each neighbour was mixed with, over the last hour or what is known of it."""
        recent, hours = self._recent()
        counts = Counter(edge.node for row in recent for edge in row.edges)
        return Counter({node: round(count / hours) for node, count in counts.items()})

    def bytes_an_hour(self) -> float | None:
        """Return what goes out and comes in, likewise; None where too little is known."""
        recent, hours = self._recent()
        return sum(row.sent_bytes + row.received_bytes for row in recent) / hours if recent else None

    def _recent(self) -> tuple[list[RoundReport], float]:
        """Return the rounds of the last hour but for the oldest, and how many hours they took."""
        rows = self.rounds
        recent = [row for row in rows if row.time > rows[-1].time - RATE_SECONDS]
        if len(recent) < 2 or recent[-1].time == recent[0].time:
            return [], 1.0
        return recent[1:], (recent[-1].time - recent[0].time) / 3600

    def _hear(self, event: EventReport) -> None:
        self._note(event)
        self.lost = None
        match event.what:
            case StateReport() as state:
                self._begin(state, event)
            case RoundReport() as row:  # or the same round once more, with its evaluation
                self._rounds[row.round] = row
                _shorten(self._rounds, ROUNDS)
            case PhaseReport(phase, round) if self.status is not None:
                self.status = replace(self.status, phase=phase, round=round)
            case PeerReport() as peer:
                self._peers[peer.node] = peer
            case ProblemReport(place, sentence) as problem:
                self._problems.pop(place, None)
                if sentence:
                    self._problems[place] = problem

    def _begin(self, state: StateReport, event: EventReport) -> None:
        if self._instance not in ("", event.instance):
            self._lines[event.instance] = f"{clock(event.time)}  the daemon was started again"
        self._instance = event.instance
        self.status = state.status
        self._peers = {peer.node: peer for peer in state.peers}
        self._problems = {problem.place: problem for problem in state.problems}

    def _title(self, node: str) -> str:
        return (node in self._peers and self._peers[node].name) or short_id(node)

    def _note(self, event: EventReport) -> None:
        """Keep a line of what a person wants to read; phases and mixes are seen elsewhere."""
        what = event.what
        if isinstance(what, (StateReport, PhaseReport, HeartbeatReport)):
            return
        if isinstance(what, PeerReport) and _standing(self._peers.get(what.node)) == _standing(what):
            return
        about = what.round if isinstance(what, RoundReport) else (event.instance, event.sequence)
        self._lines[type(what), about] = line_of(event, self._title)
        _shorten(self._lines, LINES)


def is_warning(problem: ProblemReport) -> bool:
    """Tell whether it is known not to be critical."""
    return problem.alert is not None and problem.alert.severity == "warning"


def _standing(peer: PeerReport | None) -> Sequence[object]:
    return () if peer is None else (peer.state, peer.neighbour, peer.problem)


def _shorten(kept: dict[Any, Any], most: int) -> None:
    """Forget the oldest."""
    while len(kept) > most:
        del kept[next(iter(kept))]
