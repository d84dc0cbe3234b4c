"""Other work on the device comes first: what pauses a node, and when it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from decaf_node.daemon.gpu_users import other_users, sees_all_processes
from decaf_node.daemon.holds import Holds
from decaf_node.daemon.problems import Problems
from decaf_node.daemon.reports import GpuReport, MachineReport
from decaf_node.daemon.resources import CALM_SECONDS, Resources
from decaf_node.mesh.events import Event, PauseRequested, ResumeRequested
from decaf_node.settings import ResourcesSection
from tests.daemon.processes import mesh

IDLE = MachineReport((), 1, 2, 40.0, None)


class Device:
    """A node on a device whose state the test sets."""

    def __init__(self, **settings: Any) -> None:
        self.now = 0.0
        self.time = datetime(2026, 11, 29, 12, 0)
        self.figures = SimpleNamespace(now=lambda: self.machine, gpu_users=set())
        self.machine: MachineReport | None = IDLE
        self.problems = Problems()
        self.taken: list[Event] = []
        self.holds = Holds(self._take)
        self.resources = Resources(
            ResourcesSection(**settings),
            cast(Any, self.figures),
            self.holds,
            self.problems,
            trainer=lambda: 0,
            wall=lambda: self.time,
            clock=lambda: self.now,
        )

    async def _take(self, event: Event) -> None:
        self.taken.append(event)

    async def why(self, after: float = 0.0) -> str:
        """Look after so many seconds; return why the node is paused."""
        self.now += after
        await self.resources.look()
        return self.holds.why


async def test_a_device_of_which_nothing_is_asked_trains_always() -> None:
    device = Device()
    device.machine = replace(IDLE, on_battery=True, temperature_celsius=120.0)
    assert await device.why() == ""
    assert device.taken == []


async def test_training_waits_for_the_plug_and_a_while_longer() -> None:
    device = Device(only_on_ac_power=True)
    device.machine = replace(IDLE, on_battery=True)
    assert await device.why() == "the device runs on battery (resources.only_on_ac_power)"
    device.machine = replace(IDLE, on_battery=False)
    assert await device.why(after=CALM_SECONDS - 1)
    assert await device.why(after=1) == ""
    assert device.taken == [PauseRequested(), ResumeRequested()]


@pytest.mark.parametrize(
    ("hours", "trains_at"),
    [
        ("22:00-06:30", {(21, 59): False, (22, 0): True, (0, 0): True, (6, 29): True, (6, 30): False}),
        ("09:00-17:00", {(8, 59): False, (9, 0): True, (16, 59): True, (17, 0): False}),
    ],
)
async def test_training_waits_for_its_hours(hours: str, trains_at: dict[tuple[int, int], bool]) -> None:
    for (hour, minute), trains in trains_at.items():
        device = Device(only_between=hours)
        device.time = datetime(2026, 11, 29, hour, minute)
        assert (await device.why() == "") is trains


async def test_a_hot_device_cools_down_by_some_degrees_first() -> None:
    device = Device(below_celsius=80.0)
    for degrees, trains in ((79.9, True), (80.0, False), (76.0, False), (74.9, True), (79.0, True)):
        device.machine = replace(IDLE, temperature_celsius=degrees)
        assert (await device.why(after=CALM_SECONDS) == "") is trains, degrees
    device.machine = replace(IDLE, temperature_celsius=None, gpus=(GpuReport("A2000", 0.5, 1, 2, 90.0, None),))
    assert await device.why() == "the device is too hot (resources.below_celsius)"
    device.machine = None  # its driver hangs: nobody knows better
    assert await device.why(after=CALM_SECONDS) == "the device is too hot (resources.below_celsius)"


async def test_training_waits_while_another_process_has_the_gpu() -> None:
    device = Device(yield_gpu=True)
    device.figures.gpu_users = {os.getpid()}
    assert await device.why() == ""
    device.machine = None  # not read yet
    assert (await device.why(), device.problems.by_place()) == ("", {})
    device.machine = IDLE
    device.figures.gpu_users = {os.getpid(), 1}
    assert await device.why() == "another process uses the GPU (resources.yield_gpu)"
    device.figures.gpu_users = None
    assert await device.why(after=CALM_SECONDS) == ""
    assert device.problems.by_place()["resources"].id == "resources.gpu-not-told"
    device.resources.take(ResourcesSection())
    await device.why()
    assert device.problems.by_place() == {}


async def test_all_reasons_are_said() -> None:
    device = Device(only_on_ac_power=True, only_between="22:00-06:00")
    assert await device.why() == "it is not between 22:00 and 06:00 (resources.only_between)"
    device.machine = replace(IDLE, on_battery=True)
    assert "(resources.only_between); the device runs on battery" in await device.why()
    assert device.taken == [PauseRequested()]


async def test_what_an_operator_has_paused_stays_so_and_the_other_way_round() -> None:
    device = Device(only_on_ac_power=True)
    await device.holds.hold("operator", "an operator has paused it")
    device.machine = replace(IDLE, on_battery=True)
    assert "an operator" in await device.why()
    device.machine = IDLE
    assert await device.why(after=CALM_SECONDS) == "an operator has paused it"
    assert device.taken == [PauseRequested()]
    device.machine = replace(IDLE, on_battery=True)
    await device.why()
    await device.holds.release("operator")
    assert device.taken == [PauseRequested()]
    device.machine = IDLE
    assert await device.why(after=CALM_SECONDS) == ""
    assert device.taken == [PauseRequested(), ResumeRequested()]


def others_as_seen_elsewhere(users: set[int], trainer: int) -> str:
    """Ask a process that they do not descend from."""
    code = f"from decaf_node.daemon.gpu_users import other_users; print(other_users({users}, {trainer}))"
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip()


@contextmanager
def waiting() -> Iterator[int]:
    """Give a process that waits."""
    program = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
        child.communicate()


def test_our_own_processes_are_none_of_the_others() -> None:
    with waiting() as child:
        me, parent, nobody = os.getpid(), os.getppid(), 2**22 + 1  # above what Linux gives
        assert other_users({me, child, parent, nobody}, trainer=0) == [parent]
    assert isinstance(sees_all_processes(), bool)


def test_neither_are_the_ranks_of_a_trainer_nor_another_nodes_trainer() -> None:
    starts = "two = [subprocess.Popen({}) for _ in range(2)]; print(*(each.pid for each in two), flush=True)"
    for word, is_ours in (("train.py", False), ("decaf_node.training.worker", True)):
        ranks = [sys.executable, "-c", "import sys; sys.stdin.read()", word]
        launcher = [sys.executable, "-c", f"import subprocess, sys; {starts.format(ranks)}; sys.stdin.read()"]
        with subprocess.Popen(
            launcher, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as parent:
            assert parent.stdout is not None
            one, two = map(int, parent.stdout.readline().split())
            assert others_as_seen_elsewhere({one, two}, trainer=one) == "[]"
            assert others_as_seen_elsewhere({one, two}, trainer=0) == ("[]" if is_ours else str(sorted((one, two))))
            parent.communicate()


@pytest.mark.slow
def test_a_daemon_waits_for_its_hours_and_goes_on_when_the_settings_change() -> None:
    hour = datetime.now().hour
    elsewhen = f"{(hour + 6) % 24:02}:00-{(hour + 12) % 24:02}:00"
    with mesh() as make:
        node = make("a", resources={"only_between": elsewhen}).start()
        held = node.until(lambda status: status.phase == "paused").why_paused
        assert held.endswith("(resources.only_between)")
        with node.client() as client:
            answer = client.resume()
            assert (answer.phase, answer.why_paused) == ("paused", held)
            assert client.pause() == "paused"
            node.configure({})
            assert client.reload().applied == ("resources.only_between",)
            node.until(lambda status: status.why_paused == "an operator has paused it")
            client.resume()
        node.until(lambda status: status.round >= 2 and status.why_paused == "")
