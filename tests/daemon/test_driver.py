"""The loop: events in order, ticks when they are due, stale events forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from decaf_node.daemon.driver import Driver
from decaf_node.mesh.events import Effect, Event, HelloReceived, PauseRequested, PeerLeft, StopTraining, Tick, Warn
from decaf_node.mesh.rumours import NO_NEWS, News
from decaf_node.mesh.topology import Graph, graph_of
from decaf_node.mesh.view import NodeView

VIEW = NodeView("training", 1, 0, 0, (), 0, ())


class Recorder:
    """A machine that notes what it is told. ``wants``: its next deadlines, one after another."""

    def __init__(self, *wants: float) -> None:
        self.taken: list[tuple[Event, float]] = []
        self.wants = list(wants)
        self.idle = asyncio.Event()
        self.answers: dict[type[Event], list[Effect]] = {}

    def step(self, event: Event, now: float) -> list[Effect]:
        self.taken.append((event, now))
        if isinstance(event, Tick):
            self.wants.pop(0)
            if not self.wants:
                self.idle.set()
        return self.answers.get(type(event), [])

    def deadline(self) -> float | None:
        return self.wants[0] if self.wants else None

    def view(self, now: float) -> NodeView:
        return VIEW

    def graph(self, now: float) -> tuple[Graph, int]:
        return graph_of("full", ["A", "B"]), 0

    def needed(self) -> frozenset[str]:
        return frozenset()

    def news(self, peer: str = "", theirs: News = NO_NEWS) -> News:
        return News(incarnation=len(self.taken))


@asynccontextmanager
async def running(driver: Driver, perform: Callable[[Effect], None] = lambda _: None) -> AsyncIterator[list[NodeView]]:
    seen: list[NodeView] = []
    task = asyncio.create_task(driver.run(perform, seen.append))
    yield seen
    task.cancel()
    await asyncio.wait({task})


async def test_a_hello_is_answered_by_what_the_machine_says_once_it_has_taken_it() -> None:
    machine = Recorder()
    driver = Driver(machine, limit=8, clock=lambda: 5.0)
    async with running(driver):
        assert driver.news() == News(incarnation=0)
        assert await driver.greet(HelloReceived("x", "X", "", 0)) == News(incarnation=1)


async def test_events_are_taken_in_order_and_effects_performed() -> None:
    machine, performed = Recorder(), list[Effect]()
    machine.answers[PauseRequested] = [Warn("a", "first"), StopTraining()]
    driver = Driver(machine, limit=8, clock=lambda: 5.0)
    async with running(driver, performed.append) as seen:
        await driver.post(PeerLeft("x"))
        await driver.post_and_wait(PauseRequested())
        assert machine.taken == [(PeerLeft("x"), 5.0), (PauseRequested(), 5.0)]
        assert performed == [Warn("a", "first"), StopTraining()]
        assert seen == [VIEW, VIEW]


async def test_a_deadline_that_has_come_is_a_tick() -> None:
    machine = Recorder(3.0, 4.0)
    driver = Driver(machine, limit=8, clock=lambda: 4.0)
    async with running(driver):
        await asyncio.wait_for(machine.idle.wait(), 5.0)
        await driver.post_and_wait(PauseRequested())
        assert [event for event, _ in machine.taken] == [Tick(), Tick(), PauseRequested()]


async def test_an_event_goes_before_a_tick_that_is_due_later() -> None:
    machine = Recorder(1e9)
    driver = Driver(machine, limit=8, clock=lambda: 0.0)
    async with running(driver):
        await driver.post_and_wait(PauseRequested())
        assert [event for event, _ in machine.taken] == [PauseRequested()]


async def test_a_stale_event_is_forgotten() -> None:
    machine = Recorder()
    driver = Driver(machine, limit=8)
    fresh = True
    await driver.post(PeerLeft("old"), lambda: fresh)
    fresh = False
    async with running(driver):
        await driver.post_and_wait(PauseRequested())
    assert [event for event, _ in machine.taken] == [PauseRequested()]


async def test_a_full_queue_holds_back_who_posts() -> None:
    driver = Driver(Recorder(), limit=1)
    await driver.post(PeerLeft("a"))
    second = asyncio.create_task(driver.post(PeerLeft("b")))
    await asyncio.wait({second}, timeout=0.05)
    assert not second.done()
    async with running(driver):
        await second
