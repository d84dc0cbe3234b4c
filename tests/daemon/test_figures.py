"""Figures of the device: a Jetson's files, NVML, and devices that tell nothing.

The files are those of an Orin under JetPack 5 and 6. NVML is the real binding; where a test needs a GPU its functions
are stood in for, as no machine that runs tests has one.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from decaf_node.daemon.figures import OLD_SECONDS, Figures
from decaf_node.daemon.nvml import Nvml
from decaf_node.daemon.reports import GpuReport, MachineReport, RailReport
from tests.daemon.processes import PATIENCE

ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/meminfo": "MemTotal:        7801304 kB\nMemFree:          201004 kB\nMemAvailable:    5801304 kB\n",
    "sys/class/devfreq/17000000.gpu/device/load": "734\n",
    "sys/class/devfreq/15340000.vic/device/load": "0\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51125\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "52562\n",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal\n",  # without power
    "sys/class/thermal/thermal_zone2/temp": "-256000\n",
    "sys/class/thermal/thermal_zone3/type": "PMIC-Die\n",
    "sys/class/thermal/thermal_zone3/temp": "100000\n",
    "sys/class/hwmon/hwmon0/name": "pwm_tach\n",
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "5088\n",
    "sys/class/hwmon/hwmon1/curr1_input": "1500\n",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon1/in2_input": "5080\n",
    "sys/class/hwmon/hwmon1/curr2_input": "600\n",
    "sys/class/hwmon/hwmon1/in3_label": "VDD_SOC\n",  # its current cannot be read
    "sys/class/hwmon/hwmon1/in3_input": "5080\n",
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages\n",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_jetson_is_read_from_its_files(tmp_path: Path) -> None:
    assert Figures(tree(tmp_path, ORIN)).read() == MachineReport(
        gpus=(GpuReport("NVIDIA Jetson Orin Nano Developer Kit", 0.734, None, None, 52.562, None),),
        memory_used_bytes=2_000_000 * 1024,
        memory_total_bytes=7_801_304 * 1024,
        temperature_celsius=52.562,
        power_watts=7.632,
        rails=(
            RailReport("VDD_IN", 7.632),
            RailReport("VDD_CPU_GPU_CV", 3.048),
        ),
    )


@pytest.mark.parametrize("gpu", ["17000000.ga10b", "17000000.gv11b"])
def test_the_gpu_of_older_systems_has_another_name(tmp_path: Path, gpu: str) -> None:
    files = {f"sys/class/devfreq/{gpu}/device/load": "1000\n", "sys/class/hwmon/hwmon0/name": "ina3221\n"}
    report = Figures(tree(tmp_path, files)).read()
    assert report.gpus == (GpuReport(gpu, 1.0, None, None, None, None),)


def test_what_cannot_be_read_is_absent_and_never_zero(tmp_path: Path) -> None:
    nothing = MachineReport((), None, None, None, None)
    assert Figures(tmp_path).read() == nothing
    broken = dict.fromkeys(ORIN, "") | {"sys/class/hwmon/hwmon1/name": "ina3221"}
    assert Figures(tree(tmp_path, broken)).read() == nothing


def test_this_machine_tells_its_memory() -> None:
    report = Figures().read()
    assert report.memory_total_bytes is not None
    assert report.memory_used_bytes is not None
    assert 0 < report.memory_used_bytes < report.memory_total_bytes


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("pynvml.CDLL", not_found)  # as where there is no driver, on a machine that has one too
    assert Nvml().gpus() == []


class Driver:
    """Answers as NVML does: one GPU that tells all, and one that tells only its name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connected = 0
        self.lost = False
        full: dict[str, Any] = {
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=97, memory=30),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3_000, total=6_000, free=3_000),
            "nvmlDeviceGetTemperature": 71,
            "nvmlDeviceGetPowerUsage": 48_040,
        }
        for name, answer in full.items():
            monkeypatch.setattr(pynvml, name, self.answering(answer))
        monkeypatch.setattr(pynvml, "nvmlInit", self.connect)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", self.count)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda number: number)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda number: ["NVIDIA RTX A2000", b"Tesla"][number])

    def connect(self) -> None:
        self.connected += 1

    def count(self) -> int:
        if self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return 2

    def answering(self, answer: Any) -> Any:
        def question(number: int, *_: object) -> Any:
            if number:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return answer

        return question


def test_gpus_are_read_through_nvml_as_far_as_each_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch)
    figures = Figures(tree(tmp_path, ORIN))
    for _ in range(2):
        assert figures.read().gpus == (
            GpuReport("NVIDIA RTX A2000", 0.97, 3_000, 6_000, 71.0, 48.04),
            GpuReport("Tesla", None, None, None, None, None),
        )
    assert driver.connected == 1
    driver.lost = True
    assert Nvml().gpus() == []
    assert figures.read().gpus[0].name == "NVIDIA Jetson Orin Nano Developer Kit"
    driver.lost = False
    assert len(figures.read().gpus) == 2
    assert driver.connected == 3
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", driver.answering(None))
    (shared,) = figures.read().gpus
    assert (shared.name, shared.use is None) == ("NVIDIA Jetson Orin Nano Developer Kit", False)


def test_a_reading_that_hangs_holds_up_nobody_and_is_told_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decaf_node.daemon.figures.EVERY_SECONDS", 0.01)
    now = 100.0
    figures = Figures(clock=lambda: now)
    reading, hangs, go_on = figures.read(), threading.Event(), threading.Event()
    readings = iter([reading])

    def read() -> MachineReport:
        if (first := next(readings, None)) is not None:
            return first
        hangs.set()
        go_on.wait()
        return reading

    monkeypatch.setattr(figures, "read", read)
    figures.start()
    assert hangs.wait(PATIENCE)
    now += OLD_SECONDS
    assert figures.now() == reading
    now += 0.1
    assert figures.now() is None
    figures.stop()
    go_on.set()


PLUG, BATTERY = "sys/class/power_supply/AC/", "sys/class/power_supply/BAT0/"
MOUSE = {f"sys/class/power_supply/hid/{name}": text for name, text in (("type", "Battery\n"), ("scope", "Device\n"))}


@pytest.mark.parametrize(
    ("files", "on_battery"),
    [
        ({}, None),
        ({f"{PLUG}type": "Mains\n", f"{PLUG}online": "1\n"}, None),  # no battery
        (MOUSE | {"sys/class/power_supply/hid/status": "Discharging\n"}, None),
        ({f"{BATTERY}type": "Battery\n", f"{BATTERY}status": "Discharging\n"}, True),
        ({f"{BATTERY}type": "UPS\n", f"{BATTERY}status": "Discharging\n"}, True),
        ({f"{BATTERY}type": "Battery\n", f"{BATTERY}status": "Full\n"}, False),
        (
            {
                **{f"{BATTERY}type": "Battery\n", f"{BATTERY}status": "Discharging\n"},  # a weak plug
                **{f"{PLUG}type": "USB\n", f"{PLUG}online": "1\n"},
            },
            False,
        ),
    ],
)
def test_whether_a_device_runs_on_battery(tmp_path: Path, files: dict[str, str], on_battery: bool | None) -> None:
    assert Figures(tree(tmp_path, files)).read().on_battery is on_battery


def test_who_keeps_a_gpu_busy_is_read_through_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def samples(number: int, since: int) -> list[Any]:
        assert abs(since / 1e6 - time.time()) < 60, "microseconds since 1970"
        if number:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)  # nobody
        return [SimpleNamespace(pid=7, smUtil=80), SimpleNamespace(pid=8, smUtil=3), SimpleNamespace(pid=7, smUtil=0)]

    driver, nvml = Driver(monkeypatch), Nvml()
    assert nvml.users() is None, "not connected yet"
    assert len(nvml.gpus()) == 2
    monkeypatch.setattr(pynvml, "nvmlDeviceGetProcessUtilization", samples)
    assert nvml.users() == {7}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetProcessUtilization", driver.answering([]))
    assert nvml.users() is None, "the second does not tell"
