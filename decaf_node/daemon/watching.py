"""Those who watch: changes go into the hub as they are seen, and out to each watcher as fast as it reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from decaf_node.daemon.changes import Changes
from decaf_node.daemon.hub import WATCHERS, Hub, Missed, Numbered, StateWanted, Watcher
from decaf_node.daemon.reports import (
    HEARTBEAT_SECONDS,
    EventReport,
    GapReport,
    HeartbeatReport,
    ProblemReport,
    RoundReport,
    StateReport,
)
from decaf_node.daemon.status import Status, peer_report
from decaf_node.mesh.view import NodeView, PeerView

LOOK_SECONDS = 1.0  # for what changes without a step of the machine: a full disk, say


class Watching:
    """The hub of a running daemon. wall: seconds since 1970."""

    def __init__(self, status: Status, instance: str, wall: Callable[[], float] = time.time) -> None:
        self._hub = Hub(instance)
        self._status = status
        self._changes = Changes()
        self._wall = wall

    def mixed(self, row: RoundReport) -> None:
        """A round is mixed, or evaluated after that."""
        self._hub.publish(self._wall(), row)

    def look(self, view: NodeView) -> None:
        """Look at the node after a step."""
        for change in self._changes.look(view, self._status.alerts(view)):
            told = peer_report(change, self._status.loss_of(change.peer)) if isinstance(change, PeerView) else change
            self._hub.publish(self._wall(), told)

    async def run(self) -> None:
        """Look now and then, while somebody watches."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._hub.watchers:
                self.look(self._status.view())

    async def watch(self, instance: str, after: int, at_most: int = WATCHERS) -> AsyncGenerator[EventReport, None]:
        """Yield the state and the changes, or those ``after`` one; see ``Hub.open``, whose error it raises.

        Who goes on where nothing has happened since hears a heartbeat at once.
        """
        news = asyncio.Event()
        watcher = self._hub.open(news.set, instance, after, at_most)
        try:
            first = watcher.take()
            yield self._heartbeat(watcher) if first is None else self._event(first)
            while True:
                news.clear()
                while (next_ := watcher.take()) is not None:
                    yield self._event(next_)
                try:
                    await asyncio.wait_for(news.wait(), HEARTBEAT_SECONDS)
                except asyncio.TimeoutError:
                    yield self._heartbeat(watcher)
        finally:
            self._hub.close(watcher)

    def _event(self, taken: Numbered | Missed | StateWanted) -> EventReport:
        if isinstance(taken, Numbered):
            return EventReport(self._hub.instance, taken.sequence, taken.time, taken.change)
        what = GapReport(taken.count) if isinstance(taken, Missed) else self._state()
        return EventReport(self._hub.instance, taken.sequence, self._wall(), what)

    def _heartbeat(self, watcher: Watcher) -> EventReport:
        return EventReport(self._hub.instance, watcher.told, self._wall(), HeartbeatReport())

    def _state(self) -> StateReport:
        alerts = self._status.alerts(self._status.view())
        return StateReport(
            self._status.status(),
            tuple(self._status.peers()),
            tuple(ProblemReport(alert.place, alert.words, alert) for alert in alerts),
            HEARTBEAT_SECONDS,
        )
