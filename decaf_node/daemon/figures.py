"""Figures of the device for ``status`` and metrics, read now and then by a thread of its own.

A driver that hangs holds up nothing: the figures grow old, and are told no more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from decaf_node.daemon.gpu_users import sees_all_processes
from decaf_node.daemon.nvml import Nvml
from decaf_node.daemon.reports import MachineReport
from decaf_node.daemon.sysfs import jetson_gpu, memory, on_battery, rails, whole_board, zones

EVERY_SECONDS = 5.0
OLD_SECONDS = 3 * EVERY_SECONDS


class Figures:
    """The last reading. root: where ``sys`` and ``proc`` are; clock: monotonic seconds."""

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._nvml = Nvml()
        self._ended = threading.Event()
        self._users: set[int] | None = None
        self._last: tuple[float, MachineReport] | None = None

    @property
    def gpu_users(self) -> set[int] | None:
        """Return the processes that compute on a GPU, as last read; None where that cannot be told."""
        return None if self.now() is None else self._users

    def start(self) -> None:
        """Read from now on."""
        threading.Thread(target=self._run, name="figures", daemon=True).start()

    def stop(self) -> None:
        """Read no more; a reading that hangs is left behind."""
        self._ended.set()

    def now(self) -> MachineReport | None:
        """Return the last reading, unless there is none of late."""
        if self._last is None or self._clock() - self._last[0] > OLD_SECONDS:
            return None
        return self._last[1]

    def read(self) -> MachineReport:
        """Take a reading."""
        gpus = self._nvml.gpus()  # of a Jetson's own, next to nothing or none
        if all(gpu.use is None for gpu in gpus) and (shared := jetson_gpu(self._root)) is not None:
            gpus = [shared]
        measured = list(rails(self._root))
        hottest = max((degrees for _, degrees in zones(self._root)), default=None)
        return MachineReport(
            tuple(gpus),
            *memory(self._root),
            hottest,
            whole_board(measured),
            tuple(measured),
            on_battery(self._root),
        )

    def _run(self) -> None:
        while not self._ended.is_set():
            report = self.read()
            self._users = self._nvml.users() if sees_all_processes() else None
            self._last = self._clock(), report
            self._ended.wait(EVERY_SECONDS)
