"""How much room a file system has."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Disk:
    """The file system of a folder. free_bytes: what this user may still write."""

    size_bytes: int
    free_bytes: int


def disk_of(folder: Path) -> Disk | None:
    """Return the room where the folder is; None if it cannot be told. It may block."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return Disk(usage.total, usage.free)
