"""Other work on the device comes first: the node is paused while ``[resources]`` says so."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from decaf_node.daemon.figures import EVERY_SECONDS, Figures
from decaf_node.daemon.gpu_users import other_users
from decaf_node.daemon.holds import Holds
from decaf_node.daemon.logs import fields
from decaf_node.daemon.problems import Problem, Problems
from decaf_node.daemon.reports import MachineReport
from decaf_node.settings import ResourcesSection

log = logging.getLogger(__name__)

HOLDER = "resources"
CALM_SECONDS = 30.0  # nothing may have held it for so long before it goes on: what stops and starts does so once
COOLER_CELSIUS = 5.0  # than where it was paused, before it goes on
CANNOT_TELL = Problem(
    "resources.gpu-not-told",
    "Which processes use the GPU cannot be told here, so resources.yield_gpu has no effect.",
    "It needs NVIDIA's driver and the host's process IDs: not a Jetson, not a container of its own.",
)


class Resources:
    """Looks at the device now and then, and holds the node. trainer: its process ID, 0 where there is none."""

    def __init__(
        self,
        settings: ResourcesSection,
        figures: Figures,
        holds: Holds,
        problems: Problems,
        trainer: Callable[[], int],
        wall: Callable[[], datetime] = datetime.now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._figures = figures
        self._holds = holds
        self._problems = problems
        self._trainer = trainer
        self._wall = wall
        self._clock = clock
        self._held = ""
        self._machine: MachineReport | None = None  # as last read: where the driver hangs, nobody knows better
        self._hot = False
        self._wanted = float("-inf")  # when something last held it

    def take(self, settings: ResourcesSection) -> None:
        """Go by these settings from now on."""
        self._settings = settings
        self._wanted = float("-inf")  # whoever changes them does not want to wait

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Pause the node, or have it go on, as the device is now."""
        why = "; ".join(self._reasons())
        now = self._clock()
        if why:
            self._wanted = now
        elif not self._held or now - self._wanted < CALM_SECONDS:
            return
        if why == self._held:
            return
        self._held = why
        if why:
            log.info("Training waits: %s.", why, extra=fields(event="held", why=why))
            await self._holds.hold(HOLDER, why)
        else:
            log.info("Training goes on.", extra=fields(event="released"))
            await self._holds.release(HOLDER)

    def _reasons(self) -> Iterator[str]:
        settings, machine = self._settings, self._figures.now()
        self._machine = machine or self._machine
        if settings.hours is not None and not _within(*settings.hours, self._wall()):
            yield f"it is not between {settings.only_between.replace('-', ' and ')} (resources.only_between)"
        if self._machine is not None:
            yield from self._reasons_of(self._machine)
        if not settings.yield_gpu:
            self._problems.clear(HOLDER)
        elif machine is not None:
            yield from self._gpu_reasons()

    def _reasons_of(self, machine: MachineReport) -> Iterator[str]:
        if self._settings.only_on_ac_power and machine.on_battery:
            yield "the device runs on battery (resources.only_on_ac_power)"
        self._hot = self._is_hot(machine)
        if self._hot:
            yield "the device is too hot (resources.below_celsius)"

    def _is_hot(self, machine: MachineReport) -> bool:
        limit = self._settings.below_celsius
        if limit is None:
            return False
        measured = [machine.temperature_celsius, *(gpu.temperature_celsius for gpu in machine.gpus)]
        hottest = max((degrees for degrees in measured if degrees is not None), default=None)
        return hottest is not None and hottest >= limit - (COOLER_CELSIUS if self._hot else 0.0)

    def _gpu_reasons(self) -> Iterator[str]:
        users = self._figures.gpu_users
        if users is None:
            self._problems.set(HOLDER, CANNOT_TELL)
            return
        self._problems.clear(HOLDER)
        if other_users(users, self._trainer()):
            yield "another process uses the GPU (resources.yield_gpu)"


def _within(start: int, end: int, now: datetime) -> bool:
    """Say whether it is between the two minutes of the day; the end may be that of the next day."""
    minute = now.hour * 60 + now.minute
    return start <= minute < end if start < end else minute >= start or minute < end
