"""The disks under the node's folders: is there room for the next rounds?"""

from __future__ import annotations

import os
from pathlib import Path

from decaf_node.daemon.doctor.finding import Finding, failure, warning, well
from decaf_node.daemon.durable import explain, full
from decaf_node.errors import TryAgain
from decaf_node.places import Places

LAYER = "disk"
LEAST_BYTES = 16 * 1024 * 1024
SAVES = 2  # a round is written beside the one that it replaces
PLENTY = 10  # times that


def look_at_disks(places: Places) -> list[Finding]:
    """Look at the disk under the state folder and at that under the runtime folder."""
    return [
        _look_at_disk("under the state folder", places.state, _saved_bytes(places.state)),
        _look_at_disk("under the runtime folder", places.runtime, 0),
    ]


def _look_at_disk(subject: str, folder: Path, saved: int) -> Finding:
    """saved: bytes of a saved round."""
    there = next(place for place in (folder, *folder.parents) if os.path.isdir(place))
    try:
        found = os.statvfs(there)
    except OSError as error:
        return failure(LAYER, subject, explain(error, there))
    free, needed = found.f_bavail * found.f_frsize, max(LEAST_BYTES, SAVES * saved)
    if free < needed:
        return failure(LAYER, subject, full(there))
    if found.f_files and not found.f_favail:
        return failure(LAYER, subject, TryAgain("disk.no-inodes", f"The disk under {there} takes no more files."))
    words = f"{free / 1e6:,.0f} MB are free under {there}"
    if free < PLENTY * SAVES * saved:
        return warning(LAYER, subject, "disk.nearly-full", f"{words}, enough for few saved rounds.")
    return well(LAYER, subject, words)


def _saved_bytes(state: Path) -> int:
    """Return the size of the largest saved round, adapter and optimizer; 0 if there is none, or it cannot be seen."""
    return sum(_largest(state / name) for name in ("snapshots", "trainer"))


def _largest(folder: Path) -> int:
    try:
        return max((entry.stat().st_size for entry in os.scandir(folder)), default=0)
    except OSError:
        return 0
