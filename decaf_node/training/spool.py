"""Snapshots in and out of the spool."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError

from decaf_node.errors import BadData, TryAgain
from decaf_node.link import File
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.codec import LIMIT_BYTES, read_snapshot, write_snapshot
from decaf_node.snapshot import Header, Wire, digest_of
from decaf_node.training.live import moved

SHOWN = 0o644


def publish(folder: Path, adapter: Adapter, *, wire: Wire, schema: str, base: str, round: int) -> File:
    """Write ``adapter`` as ``<sha256>.safetensors`` into ``folder``: whole from the moment it has its name.

    Raises TryAgain if the disk is full.
    """
    temporary = folder / f"writing-{os.getpid()}"
    try:
        write_snapshot(temporary, adapter, wire=wire, schema=schema, base=base, round=round)
        show(temporary)
        file = named_file(temporary)
        final = folder / f"{file.digest}.safetensors"
        temporary.replace(final)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(folder, error) from error
    return File(str(final), file.digest, file.size_bytes)


def fetch(file: File, device: torch.device, limit_bytes: int = LIMIT_BYTES) -> tuple[Header, Adapter]:
    """Return a snapshot of the spool on ``device``. Raises BadData, also if a deflated one holds more bytes."""
    header, adapter = read_snapshot(Path(file.path), limit_bytes)
    return header, moved(adapter, device)


def show(file: Path) -> None:
    """Let a daemon that runs as another user read it. Who else may is for the runtime folder around it to say."""
    file.chmod(SHOWN)


def named_file(path: Path) -> File:
    """Return ``path`` with its digest and size."""
    return File(str(path), digest_of(path), path.stat().st_size)


def cannot_write(folder: Path, error: OSError | SafetensorError) -> TryAgain | BadData:
    """Say for a person why nothing could be written to ``folder``."""
    number = error.errno if isinstance(error, OSError) else _system_error(error)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return TryAgain("training.disk-full", f"There is no room left in {folder}; free some, or move it elsewhere.")
    problem = os.strerror(number) if number else str(error)
    return BadData("training.cannot-write", f"{folder} cannot be written to: {problem}.")


def _system_error(error: SafetensorError) -> int | None:
    """Return the error number that safetensors only tells in words ("os error 28")."""
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None
