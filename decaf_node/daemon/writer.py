"""Small files of the identity folder, written by a thread: flushing to a slow disk must not hold up the event loop."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from decaf_node.daemon.durable import disk_errors, write_private
from decaf_node.errors import DecafError

log = logging.getLogger(__name__)


class Writer:
    """Writes one file after the other, in order."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")

    def write(self, path: Path, content: bytes) -> None:
        """Have it written soon; see ``write_now``."""
        self._thread.submit(write_now, path, content)

    async def written(self) -> None:
        """Wait until all that was to be written is."""
        await asyncio.wrap_future(self._thread.submit(lambda: None))


def write_now(path: Path, content: bytes) -> None:
    """Write the file whole, for its owner alone. A disk that fails is said in the log: what was decided holds."""
    try:
        with disk_errors(path.parent):
            write_private(path, content)
    except DecafError as error:
        log.warning("What %s says holds, but could not be kept for the next start: %s", path.name, error.message)
