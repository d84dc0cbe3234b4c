"""What a daemon tells, for as long as one looks: its past rounds and its events, over restarts and lost connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from decaf_node.daemon.client import Client
from decaf_node.daemon.reports import AlertReport, EventReport, RoundReport, StateReport
from decaf_node.errors import DaemonUnreachable, TryAgain

ROUNDS = 1000  # that the curves go back
RETRY_SECONDS = 1.0
ALERTS_SECONDS = 4.0  # at most so often they are asked for, after an event: their numbers change without one


@dataclass(frozen=True)
class Past:
    """The rounds so far, oldest first."""

    rounds: tuple[RoundReport, ...]


@dataclass(frozen=True)
class Wrong:
    """All that is wrong, the worst first."""

    alerts: tuple[AlertReport, ...]


@dataclass(frozen=True)
class Lost:
    """The daemon does not answer; it is asked again and again."""

    sentence: str


News = EventReport | Past | Wrong | Lost


class Feed:
    """The news of the daemon that ``connect`` leads to. Raises what the first connection raises, and later refusals."""

    def __init__(self, connect: Callable[[], Client], retry_seconds: float = RETRY_SECONDS) -> None:
        self._connect = connect
        self._retry = retry_seconds
        self._closed = threading.Event()
        self._client: Client | None = None
        self._told = ("", 0)
        self._heard = False  # anything at all

    def close(self) -> None:
        """End it, from any thread."""
        self._closed.set()
        if (client := self._client) is not None:
            client.close()

    def news(self) -> Iterator[News]:
        """Yield the state and the past first; then what changes, until it is closed."""
        while not self._closed.is_set():
            yield from self._until_lost()
            self._closed.wait(self._retry)

    def _until_lost(self) -> Iterator[News]:
        try:
            with self._connect() as self._client:
                yield from self._hear(self._client)
        except (DaemonUnreachable, TryAgain) as error:
            if not self._heard:
                raise
            if not self._closed.is_set():
                yield Lost(error.message)

    def _hear(self, client: Client) -> Iterator[News]:
        asked = time.monotonic()
        for event in client.watch(*self._told):
            self._heard = True
            yield event
            if isinstance(event.what, StateReport):
                yield Past(tuple(client.rounds(limit=ROUNDS)[::-1]))
            self._told = event.instance, event.sequence
            if time.monotonic() - asked >= ALERTS_SECONDS:
                asked = time.monotonic()
                yield Wrong(tuple(client.alerts()))
