"""Files that survive a power cut: flush, rename, flush the folder; and what the disk may answer, in words.

All of it blocks. Nothing here is atomic but the rename: write beside the place, ``sync``, rename, ``sync_folder``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from decaf_node.errors import DecafError, NotAllowed, TryAgain

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
PRIVATE_GROUP = 0o060
GROUP_FOLDER = 0o770
SHOWN_FILE = 0o644  # to all who may enter the folder
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def sync(path: Path) -> None:
    """Flush the file or folder at ``path`` to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder from ``folder`` down, itself last."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))


def make_folder(folder: Path) -> None:
    """Make ``folder`` and what is missing above it; a new one is private and durable."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    sync(folder.parent)


@contextlib.contextmanager
def private_sockets(folder: Path) -> Iterator[None]:
    """Sockets made meanwhile are for this user.

    They are for its group too in a folder that is, see ``is_for_group``.
    """
    group = PRIVATE_GROUP if is_for_group(folder) else 0
    before = os.umask(0o777 & ~(PRIVATE_FILE | group))
    try:
        yield
    finally:
        os.umask(before)


def is_for_group(folder: Path) -> bool:
    """Say whether systemd has made it for us so that our group may enter, and others may not."""
    entered_by = folder.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH)
    return entered_by == stat.S_IXGRP and os.environ.get("RUNTIME_DIRECTORY") == str(folder)


def make_group_folder(folder: Path) -> None:
    """Make ``folder``; whoever may enter the one above, if that is our group, may put files into it."""
    make_folder(folder)
    if is_for_group(folder.parent):
        folder.chmod(GROUP_FOLDER)


def refuse_shared(folder: Path) -> None:
    """Raise NotAllowed ``runtime.not-ours`` if another user could put sockets or snapshots of his into ``folder``.

    In a place for everyone, as /tmp is, that is so if somebody else has made it, or the folder that it lies in, first.
    """
    own, above = folder.stat(), folder.parent.stat()
    shared = folder.parent.parent.stat().st_mode & stat.S_ISVTX and folder.parent != folder.parent.parent
    looked_at = [(folder, own), (folder.parent, above)] if shared else [(folder, own)]
    for place, found in looked_at:
        if found.st_uid != os.geteuid() or found.st_mode & stat.S_IWOTH:
            raise NotAllowed(
                "runtime.not-ours",
                f"{place} belongs to another user, or anyone may write there; choose another runtime folder with "
                "--runtime.",
            )


def make_empty(folder: Path) -> None:
    """Make ``folder`` private and empty, whatever was in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)


def write_private(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, readable by the owner alone: after a crash it is whole there, or not there."""
    staged = path.with_name(f".{path.name}.tmp")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    except OSError:
        staged.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about files under ``folder`` into one sentence.

    Raises TryAgain ``disk.full``, NotAllowed ``disk.forbidden``, or TryAgain ``disk.failed``.
    """
    try:
        yield
    except OSError as error:
        raise explain(error, folder) from error


def explain(error: OSError, folder: Path) -> DecafError:
    """Return the error for a person; see ``disk_errors``."""
    if error.errno in FULL:
        return full(folder)
    where = error.filename or folder
    if error.errno in FORBIDDEN:
        return NotAllowed(
            "disk.forbidden",
            f"{where} cannot be used ({error.strerror}); let the user of decaf-node read and write {folder}.",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return NotAllowed("disk.not-a-folder", f"{where} is not a folder; move it away or choose another place.")
    return TryAgain("disk.failed", f"{where} cannot be read or written: {error.strerror}; look at the disk.")


def full(folder: Path) -> TryAgain:
    return TryAgain("disk.full", f"The disk under {folder} is full; make room there, nothing of the old state is lost.")
