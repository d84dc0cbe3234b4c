"""A snapshot on its way from a peer into the spool, and the check of what came against what was offered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from decaf_node.daemon.spool import Partial
from decaf_node.errors import BadData
from decaf_node.mesh.events import Snapshot
from decaf_node.snapshot import read_header

Result = TypeVar("Result")


class Disk(Protocol):
    """Runs blocking work elsewhere, so that the loop always answers."""

    def __call__(self, work: Callable[[], Result]) -> Awaitable[Result]:
        """Return the result of ``work``, or raise what it raises."""


class Fetch:
    """Writes the chunks of one snapshot as they come."""

    def __init__(self, snapshot: Snapshot, partial: Partial, schema: str, disk: Disk) -> None:
        self.snapshot = snapshot
        self._partial = partial
        self._schema = schema
        self._disk = disk

    @property
    def offset(self) -> int:
        """The bytes that are here."""
        return self._partial.offset

    async def write(self, offset: int, data: bytes) -> None:
        """Append a chunk; raises as ``spool.Partial.write`` does."""
        await self._disk(lambda: self._partial.write(offset, data))

    def release(self) -> None:
        """The stream has ended: let go the room that was kept for what has not come."""
        self._partial.release()

    async def finish(self) -> str:
        """Check all that came, and keep it. Returns what is wrong with it; empty if nothing is."""
        try:
            file = await self._disk(self._partial.finish)
            await self._disk(lambda: check_header(Path(file.path), self.snapshot, self._schema))
        except BadData as error:
            return error.message
        return ""


def check_header(path: Path, offered: Snapshot, schema: str) -> None:
    """Raise BadData unless the snapshot at ``path`` says of itself what its sender said of it, and has our schema."""
    header = read_header(path)
    if header.schema != schema:
        raise BadData("snapshot.other-schema", f"The snapshot {offered.digest[:12]} has another schema than ours.")
    said = (header.round, header.rank, header.size_bytes)
    if said != (offered.round, offered.rank, offered.size_bytes):
        raise BadData(
            "snapshot.not-as-offered",
            f"The snapshot {offered.digest[:12]} has round, rank and size {said}, not what was offered.",
        )
