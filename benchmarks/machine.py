"""The machine that figures were measured on."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return what to say of it beside any figure. load: of the last minute, so that a busy machine is seen."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "gpu": _gpu() if device == "cuda" else "",
        "torch": version("torch"),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def resident(pid: int | None = None, kind: str = "VmRSS") -> int:
    """Return the bytes of memory that a process holds, or (``VmHWM``) has held at most; None: this one."""
    lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


def in_words(on: dict[str, Any]) -> str:
    gpu = f"{on['gpu']} beside " if on["gpu"] else ""
    versions = f"torch {on['torch']}, Python {on['python']}"
    return f"{gpu}{on['cores']} cores of {on['cpu']}, {versions}, load {on['load']:.1f} at its end"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _gpu() -> str:
    torch = sys.modules["torch"]  # by who has measured on it
    return str(torch.cuda.get_device_name())
