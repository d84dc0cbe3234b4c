"""The only loop: events in, effects out. Whatever happens to the node goes through one bounded queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from decaf_node.mesh.events import Effect, Event, HelloReceived, Tick
from decaf_node.mesh.rumours import NO_NEWS, News
from decaf_node.mesh.topology import Graph
from decaf_node.mesh.view import NodeView

WATCH_PAUSES = 20  # times as long as a look at the node takes: of a thousand members it would be more than the rest

Fresh = Callable[[], bool]


class Machine(Protocol):
    """What decides: ``mesh.node.Node``."""

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take one event; return what to do about it."""

    def deadline(self) -> float | None:
        """When a ``Tick`` is wanted; None if none is."""

    def view(self, now: float) -> NodeView:
        """Return what it shows of itself."""

    def graph(self, now: float) -> tuple[Graph, int]:
        """Return who mixes with whom, and in which turn."""

    def needed(self) -> frozenset[str]:
        """Return the digests of the snapshots that it still needs."""

    def news(self, peer: str = "", theirs: News = NO_NEWS) -> News:
        """Return what to answer to a hello."""


class Driver:
    """Runs the machine. limit: most events that wait for their turn; clock: monotonic seconds."""

    def __init__(self, machine: Machine, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._machine = machine
        self._clock = clock
        self._events: asyncio.Queue[tuple[Event, Fresh | None]] = asyncio.Queue(limit)
        self._next: asyncio.Task[tuple[Event, Fresh | None]] | None = None
        self._watch_at = float("-inf")

    async def post(self, event: Event, fresh: Fresh | None = None) -> None:
        """Queue the event; wait while the queue is full. It is forgotten if ``fresh`` says no when its turn comes."""
        await self._events.put((event, fresh))

    async def post_and_wait(self, event: Event) -> None:
        """Queue the event, and wait until the machine has taken it."""
        loop = asyncio.get_running_loop()
        taken: asyncio.Future[None] = loop.create_future()

        def take() -> bool:
            loop.call_soon(done)  # after the step, which follows without a pause
            return True

        def done() -> None:
            if not taken.done():
                taken.set_result(None)

        await self.post(event, take)
        await taken

    async def greet(self, event: HelloReceived) -> News:
        """Have the machine take the hello; return what to answer."""
        await self.post_and_wait(event)
        return self._machine.news(event.peer, event.news)

    def news(self) -> News:
        """Return what to tell a peer of which no more than an address is known."""
        return self._machine.news()

    def view(self) -> NodeView:
        """Return what the node shows of itself now."""
        return self._machine.view(self._clock())

    def graph(self) -> tuple[Graph, int]:
        """Return who mixes with whom now, and in which turn; see ``Node.graph``."""
        return self._machine.graph(self._clock())

    async def run(self, perform: Callable[[Effect], None], watch: Callable[[NodeView], None]) -> None:
        """Turn events into effects, until cancelled.

        ``perform`` acts on an effect without waiting; ``watch`` sees the node after a step, of many not after each.
        """
        try:
            while True:
                event = await self._take()
                if event is not None:
                    now = self._clock()
                    for effect in self._machine.step(event, now):
                        perform(effect)
                    self._look(watch)
        finally:
            if self._next is not None:
                self._next.cancel()

    def _look(self, watch: Callable[[NodeView], None]) -> None:
        begun = self._clock()
        if begun >= self._watch_at:
            watch(self._machine.view(begun))
            ended = self._clock()
            self._watch_at = ended + WATCH_PAUSES * (ended - begun)

    async def _take(self) -> Event | None:
        """Return the next event, or a tick when one is due; None in place of an event that is no longer fresh."""
        if self._next is None:
            self._next = asyncio.create_task(self._events.get())
        deadline = self._machine.deadline()
        wait = None if deadline is None else max(0.0, deadline - self._clock())
        await asyncio.wait({self._next}, timeout=wait)
        if not self._next.done():
            return Tick()
        event, fresh = self._next.result()
        self._next = None
        return event if fresh is None or fresh() else None
