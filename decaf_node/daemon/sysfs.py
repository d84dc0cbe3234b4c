"""What Linux tells of a device in files: a Jetson's GPU and power supplies, thermal zones, memory.

As on JetPack 5 and 6: the GPU's load in thousandths, millivolts, milliamperes, thousandths of a degree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from decaf_node.daemon.reports import GpuReport, RailReport

GPU_NAMES = re.compile(r"gpu|ga10b|gv11b|gp10b|gm20b")
CHANNELS = (1, 2, 3)  # of an INA3221
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")
COLDEST, HOTTEST = -50.0, 150.0  # a zone without power says -256
NOT_MEASURED = "PMIC-Die"  # says the same always
BATTERIES = ("Battery", "UPS")
SENSORS_AT_MOST = 64


def jetson_gpu(root: Path) -> GpuReport | None:
    """Return the GPU of a Jetson; None on other devices. root: ``/``. Its memory is the system's."""
    for device in sorted((root / "sys/class/devfreq").glob("*")):
        load = _number(device / "device/load") if GPU_NAMES.search(device.name) else None
        if load is not None:
            model = _text(root / "proc/device-tree/model") or device.name
            hot = [degrees for name, degrees in zones(root) if name.lower().startswith("gpu")]
            return GpuReport(model, load / 1000.0, None, None, max(hot, default=None), None)
    return None


def zones(root: Path) -> Iterator[tuple[str, float]]:
    """Yield the thermal zones that can be read now, by name, in degrees Celsius."""
    for zone in _some(root / "sys/class/thermal", "thermal_zone*"):
        name, reading = _text(zone / "type"), _number(zone / "temp")
        if name and name != NOT_MEASURED and reading is not None and COLDEST < reading / 1000.0 < HOTTEST:
            yield name, reading / 1000.0


def on_battery(root: Path) -> bool | None:
    """Say whether the device runs on battery; None where it has none. Those of mice and the like do not count."""
    supplies = [place for place in _some(root / "sys/class/power_supply", "*") if _text(place / "scope") != "Device"]
    kinds = [(_text(place / "type"), place) for place in supplies]
    batteries = [place for kind, place in kinds if kind in BATTERIES]
    if not batteries:
        return None
    plugs = [_number(place / "online") for kind, place in kinds if kind not in BATTERIES]
    if any(plugs):
        return False
    return any(_text(place / "status") == "Discharging" for place in batteries)


def rails(root: Path) -> Iterator[RailReport]:
    """Yield what the supplies draw that are measured by an INA3221."""
    for monitor in _some(root / "sys/class/hwmon", "hwmon*"):
        if _text(monitor / "name") != "ina3221":
            continue
        for channel in CHANNELS:
            label = _text(monitor / f"in{channel}_label")
            volts, amperes = _number(monitor / f"in{channel}_input"), _number(monitor / f"curr{channel}_input")
            if label and volts is not None and amperes is not None:
                yield RailReport(label, volts * amperes / 1e6)


def whole_board(measured: list[RailReport]) -> float | None:
    """Return what all of the board draws, where one of its supplies measures that."""
    return next((rail.power_watts for rail in measured if rail.name in WHOLE_BOARD), None)


def memory(root: Path) -> tuple[int | None, int | None]:
    """Return how many bytes of the system's memory are in use, and how many there are."""
    found = dict(re.findall(r"^(MemTotal|MemAvailable): +([0-9]+) kB$", _text(root / "proc/meminfo"), re.M))
    if len(found) < 2:
        return None, None
    total, free = int(found["MemTotal"]) * 1024, int(found["MemAvailable"]) * 1024
    return total - free, total


def _some(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))[:SENSORS_AT_MOST]


def _text(path: Path) -> str:
    """Return what the file says; nothing where it cannot be read: a sensor may be off."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
