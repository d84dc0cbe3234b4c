"""The GPUs of a desktop, as NVIDIA's driver tells of them (NVML). Nothing of it is loaded before the first reading."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from decaf_node.daemon.reports import GpuReport

GPUS_AT_MOST = 16
LATELY_SECONDS = 10.0
BUSY_PERCENT = 10  # of the GPU's cores: a desktop that is drawn takes less


class Nvml:
    """Stays connected to the driver from the first reading that works: to connect anew each time may wake the GPU."""

    def __init__(self) -> None:
        self._library: Any = None

    def gpus(self) -> list[GpuReport]:
        """Return all GPUs; none where there is no driver."""
        import pynvml  # 30 ms, in the thread that reads

        try:
            if self._library is None:
                pynvml.nvmlInit()
                self._library = pynvml
            count = min(pynvml.nvmlDeviceGetCount(), GPUS_AT_MOST)
            return [self._gpu(pynvml.nvmlDeviceGetHandleByIndex(number)) for number in range(count)]
        except pynvml.NVMLError:  # the driver is not there, or was replaced meanwhile
            self._library = None
            return []

    def users(self) -> set[int] | None:
        """Return the processes that have kept a GPU busy of late, by their IDs on the host.

        None where that cannot be told. One that only holds memory there, as an idle notebook does, is none of them.
        """
        if self._library is None:
            return None
        nvml = self._library
        since = int((time.time() - LATELY_SECONDS) * 1e6)
        try:
            handles = map(nvml.nvmlDeviceGetHandleByIndex, range(min(nvml.nvmlDeviceGetCount(), GPUS_AT_MOST)))
            return {
                each.pid for handle in handles for each in self._samples(handle, since) if each.smUtil >= BUSY_PERCENT
            }
        except nvml.NVMLError:
            return None

    def _samples(self, handle: Any, since: int) -> list[Any]:
        try:
            return list(self._library.nvmlDeviceGetProcessUtilization(handle, since))
        except self._library.NVMLError_NotFound:  # nobody
            return []

    def _gpu(self, handle: Any) -> GpuReport:
        nvml = self._library
        name = self._ask(nvml.nvmlDeviceGetName, handle)
        use = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        degrees = self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        power = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        return GpuReport(
            name.decode() if isinstance(name, bytes) else name or "GPU",
            None if use is None else use.gpu / 100.0,
            None if memory is None else memory.used,
            None if memory is None else memory.total,
            None if degrees is None else float(degrees),
            None if power is None else power / 1000.0,
        )

    def _ask(self, question: Callable[..., Any], *about: Any) -> Any:
        """Return the answer; None where this GPU has none."""
        try:
            return question(*about)
        except self._library.NVMLError:
            return None
