"""The adapter of the last saved round, copied whole or not at all. Quick to import: the command line does it itself."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from decaf_node.errors import NotAllowed, TryAgain

ATTEMPTS = 5  # a running daemon may replace the adapter while it is copied


def copy_adapter(source: Path, target: Path, force: bool = False) -> None:
    """Copy the folder that ``source`` leads to; ``target`` appears whole or not at all.

    Raises TryAgain if nothing is saved yet, NotAllowed if ``target`` holds something and ``force`` is not set,
    NotAllowed or TryAgain if the copy cannot be written.
    """
    try:
        _check(source, target, force)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
            fresh = _copy(source, Path(scratch) / "fresh")
            if force and target.exists():
                target.rename(Path(scratch) / "replaced")
            fresh.rename(target)
    except PermissionError as error:
        raise NotAllowed("export.not-permitted", f"This user may not copy {source} to {target}: {error}.") from error
    except OSError as error:
        raise TryAgain("export.cannot-write", f"The adapter cannot be copied to {target}: {error}.") from error


def _check(source: Path, target: Path, force: bool) -> None:
    if not source.is_dir():
        raise TryAgain(
            "export.nothing-saved", f"Nothing is saved at {source} yet; try again after the node's first saved round."
        )
    if not force and (target.is_file() or (target.is_dir() and any(target.iterdir()))):
        raise NotAllowed(
            "export.not-empty", f"{target} is not empty; choose another folder, or replace it with --force."
        )


def _copy(source: Path, fresh: Path, attempts: int = ATTEMPTS) -> Path:
    try:
        return Path(shutil.copytree(source.resolve(strict=True), fresh))
    except (shutil.Error, FileNotFoundError):
        if attempts == 1:
            raise
    shutil.rmtree(fresh, ignore_errors=True)
    return _copy(source, fresh, attempts - 1)
