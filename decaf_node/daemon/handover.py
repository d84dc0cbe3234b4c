"""Saved rounds to and from a trainer that runs as another user: it may enter the runtime folder, but not the state.

It is trusted with the adapter, and with nothing else: of what it has written only plain files in the folder that it was
given are taken, whatever paths it names.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from decaf_node.daemon.durable import GROUP_FOLDER, SHOWN_FILE, disk_errors, make_group_folder
from decaf_node.daemon.spool import Spool
from decaf_node.errors import BadData
from decaf_node.link import EXPORT_FOLDER, File, StateSaved

NOT_THERE = frozenset({errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO})


class Handover:
    """folder: in the runtime folder; it holds one saved round at a time. Raises from every method what disks do."""

    def __init__(self, folder: Path, spool: Spool) -> None:
        self._folder = folder
        self._spool = spool
        self._staged = folder

    def give(self, snapshot: File, trainer: File) -> tuple[File, File]:
        """Return copies of a saved round that it can read; the snapshot's is in the spool, where mixes look for it."""
        self._spool.keep(snapshot)
        with disk_errors(self._folder):
            self._make_empty()
            copy = self._folder / Path(trainer.path).name
            shutil.copyfile(trainer.path, copy)
            copy.chmod(SHOWN_FILE)
        return replace(snapshot, path=str(self._spool.path(snapshot.digest))), replace(trainer, path=str(copy))

    def staging(self, round: int) -> Path:
        """Return a fresh folder in which it can write the files of ``round``."""
        with disk_errors(self._folder):
            self._make_empty()
            self._staged = Path(tempfile.mkdtemp(prefix=f"{round}-", dir=self._folder))
            (self._staged / EXPORT_FOLDER).mkdir()  # ours, so that what is written there can be removed
            for place in (self._staged, self._staged / EXPORT_FOLDER):
                place.chmod(GROUP_FOLDER)
        return self._staged

    def take(self, saved: StateSaved, staging: Path) -> StateSaved:
        """Copy what it has written into ``staging``; return the same with the paths there.

        Raises BadData ``handover.no-file`` where something else lies in place of a file.
        """
        files = [Path(file.path).name for file in (saved.snapshot, saved.trainer)]
        export = staging / EXPORT_FOLDER
        with disk_errors(self._folder):
            _copy_files(self._staged, staging, files)
            export.mkdir()
            _copy_files(self._staged / EXPORT_FOLDER, export)
            self._make_empty()
        snapshot, trainer = (
            replace(file, path=str(staging / name))
            for file, name in zip((saved.snapshot, saved.trainer), files, strict=True)
        )
        return replace(saved, snapshot=snapshot, trainer=trainer, export=str(export))

    def _make_empty(self) -> None:
        make_group_folder(self._folder)
        for left in self._folder.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def _copy_files(source: Path, target: Path, names: list[str] | None = None) -> None:
    """Copy these files of a folder that another user may write to, or all of them; a link is never followed."""
    with _opened(source, os.O_DIRECTORY) as folder:
        for name in names or os.listdir(folder):
            with _opened(name, os.O_NONBLOCK, folder) as descriptor, (target / name).open("xb") as copy:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise _no_file(source / name)
                with open(descriptor, "rb", closefd=False) as file:
                    shutil.copyfileobj(file, copy)


@contextmanager
def _opened(path: str | Path, flags: int, folder: int | None = None) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    except OSError as error:
        if error.errno in NOT_THERE:
            raise _no_file(path) from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _no_file(path: str | Path) -> BadData:
    return BadData("handover.no-file", f"The trainer has written no {Path(path).name}, or something that is no file.")
