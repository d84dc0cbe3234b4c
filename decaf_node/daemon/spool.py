"""Snapshots in flight: whole files named by digest, parts that are still coming, all capped in bytes.

The folder is shared with the own trainer, which writes ``.<anything>.tmp`` and renames it to ``<sha256>.safetensors``.
Nothing is ever flushed to the disk. A restart of the node keeps all of it: receipts speak of these files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from decaf_node.daemon.durable import PRIVATE_FILE, SHOWN_FILE, disk_errors, make_group_folder
from decaf_node.errors import BadData, TryAgain
from decaf_node.link import File
from decaf_node.snapshot import READ_BYTES, digest_of

WHOLE = ".safetensors"
PART = ".part"
STALE_PART_SECONDS = 600.0
STALE_STRANGER_SECONDS = 3600.0
DIGEST = re.compile(r"[0-9a-f]{64}")


class Spool:
    """The spool folder. Calls block for as long as the disk takes; any thread may call, a part has one writer.

    Raises from every method: BadData ``snapshot.bad-digest`` for what is no hex sha256; TryAgain ``disk.full`` or
    ``disk.failed``, NotAllowed ``disk.forbidden``.
    """

    def __init__(self, folder: Path, limit_bytes: int, clock: Callable[[], float] = time.time) -> None:
        """Take the folder as it is, or make it. clock: seconds since 1970, as file times are."""
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._parts: dict[str, Partial] = {}  # by peer: those of which the streams are up
        with disk_errors(folder):
            make_group_folder(folder)
            self._known = {path.name for path in folder.iterdir()}

    def path(self, digest: str) -> Path:
        """Return where the whole snapshot is or would be."""
        return self.folder / f"{_checked(digest)}{WHOLE}"

    def has(self, digest: str) -> bool:
        """Tell whether the whole snapshot is here; its bytes are not looked at."""
        path = self.path(digest)
        self._known.add(path.name)
        return path.is_file()

    def verified(self, digest: str) -> File | None:
        """Read the whole snapshot and return it; one whose bytes do not fit its name (a power cut) is removed."""
        path = self.path(digest)
        with disk_errors(self.folder):
            if not self.has(digest):
                return None
            if digest_of(path) == digest:
                return File(str(path), digest, path.stat().st_size)
            path.unlink()
            return None

    def keep(self, file: File) -> None:
        """Copy a saved snapshot into the spool, where it stays while it is needed."""
        path = self.path(file.digest)
        staged = path.with_name(f".{path.name}.tmp")
        with disk_errors(self.folder):
            if not self.has(file.digest):
                shutil.copyfile(file.path, staged)
                staged.chmod(SHOWN_FILE)
                os.replace(staged, path)

    def read(self, digest: str, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``. Raises TryAgain ``spool.gone`` if the snapshot is not here."""
        path = self.path(digest)
        with disk_errors(self.folder):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise TryAgain("spool.gone", f"The snapshot {digest[:12]} is not here any more.") from None
            try:
                return os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)

    def partial(self, digest: str, size: int, peer: str) -> Partial:
        """Begin to write a snapshot of ``size`` bytes, or go on where an earlier try ended (its bytes are read again).

        A peer has one part, of its own: what others send under the same digest can neither end nor spoil it. The room
        is kept until ``Partial.release``. An earlier ``Partial`` of the peer ends: its next write raises TryAgain
        ``spool.taken-over``. What nobody is writing any more makes room, the oldest first.
        Raises TryAgain ``spool.full`` if the spool would hold more than it may.
        """
        path = self.folder / f"{_checked(digest)}.{peer}{PART}"
        with disk_errors(self.folder), self._lock:
            if (earlier := self._parts.pop(peer, None)) is not None:
                earlier.taken_over = True
            self._remove_others(peer, path.name)
            self._make_room(path.name, size)
            if path.exists() and path.stat().st_size > size:
                path.unlink()
            partial = Partial(path, self.path(digest), digest, size, peer, self._settled)
            self._parts[peer] = partial
        with disk_errors(self.folder):
            partial.resume()
        return partial

    def prune(self, keep: frozenset[str]) -> None:
        """Remove every whole snapshot but those in ``keep``, and what is left of tries that nobody goes on with.

        Parts are kept while they are in ``keep`` or were written to in the last ten minutes. A file that this spool
        was never told of may be the trainer's, just written and not yet announced: it is kept for an hour.
        """
        with disk_errors(self.folder), self._lock:
            written = {partial.path.name for partial in self._parts.values()}
            for name, found in self._files():
                needed = name.partition(".")[0] in keep or name in written
                if not needed and self._is_stale(name, self._clock() - found.st_ctime):
                    (self.folder / name).unlink(missing_ok=True)
                    self._known.discard(name)
            self._known.update(f"{digest}{WHOLE}" for digest in keep)

    def used_bytes(self) -> int:
        """Return what is here and what is promised to the parts that are being written."""
        with disk_errors(self.folder), self._lock:
            return self._used_bytes("")

    def _files(self) -> list[tuple[str, os.stat_result]]:
        """Return what lies in the folder; the trainer may rename and remove files meanwhile."""
        found = []
        for entry in list(os.scandir(self.folder)):
            with contextlib.suppress(FileNotFoundError):
                found.append((entry.name, entry.stat(follow_symlinks=False)))
        return found

    def _is_stale(self, name: str, age: float) -> bool:
        if name.endswith(PART):
            return age > STALE_PART_SECONDS
        return (name in self._known and name.endswith(WHOLE)) or age > STALE_STRANGER_SECONDS

    def _remove_others(self, peer: str, but: str) -> None:
        """Remove what the peer has begun to send before, under another digest."""
        for name, _ in self._files():
            if name.endswith(f".{peer}{PART}") and name != but:
                (self.folder / name).unlink(missing_ok=True)

    def _make_room(self, name: str, size: int) -> None:
        """Remove parts that nobody is writing until ``size`` bytes fit. Raises TryAgain ``spool.full``."""
        written = {partial.path.name for partial in self._parts.values()}
        spare = [(found.st_mtime, part) for part, found in self._files() if part.endswith(PART)]
        for _, part in sorted(spare):
            if self._fits(name, size):
                return
            if part not in written and part != name:
                (self.folder / part).unlink(missing_ok=True)
        if not self._fits(name, size):
            raise TryAgain(
                "spool.full",
                f"A snapshot of {size} bytes does not fit into the spool {self.folder}, where {self._used_bytes(name)} "
                f"of {self._limit_bytes} bytes are taken; raise limits.spool_bytes.",
            )

    def _fits(self, name: str, size: int) -> bool:
        return self._used_bytes(name) + size <= self._limit_bytes

    def _used_bytes(self, but: str) -> int:
        sizes = {name: found.st_size for name, found in self._files()}
        for partial in self._parts.values():
            sizes[partial.path.name] = partial.size
        sizes.pop(but, None)
        return sum(sizes.values())

    def _settled(self, partial: Partial, whole: bool) -> None:
        with self._lock:
            if whole:
                self._known.add(partial.whole.name)
            if self._parts.get(partial.peer) is partial:
                del self._parts[partial.peer]


class Partial:
    """A snapshot that is being written by one peer, from its start to its end without gaps.

    settled: called when nothing more will be written, with whether all of it is here.
    """

    def __init__(
        self, path: Path, whole: Path, digest: str, size: int, peer: str, settled: Callable[[Partial, bool], None]
    ) -> None:
        self.path = path
        self.whole = whole
        self.digest = digest
        self.size = size
        self.peer = peer
        self.offset = 0
        self.taken_over = False
        self._hash = hashlib.sha256()
        self._settled = settled

    def resume(self) -> None:
        """Read what an earlier try left, and go on behind it; ``Spool.partial`` does so."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        os.fchmod(descriptor, SHOWN_FILE)
        with os.fdopen(descriptor, "rb") as file:
            while block := file.read(READ_BYTES):
                self._hash.update(block)
                self.offset += len(block)

    def write(self, offset: int, data: bytes) -> None:
        """Append ``data``. If it raises, nothing was appended.

        Raises BadData ``snapshot.out-of-order`` unless ``offset`` is where the part ends, ``snapshot.too-long`` if it
        would grow beyond its size; TryAgain ``spool.taken-over`` if another try has begun.
        """
        self._refuse_if_taken_over()
        if offset != self.offset:
            raise BadData(
                "snapshot.out-of-order",
                f"A piece of the snapshot {self.digest[:12]} came for byte {offset} where byte {self.offset} was due.",
            )
        if offset + len(data) > self.size:
            raise BadData("snapshot.too-long", f"More than {self.size} bytes came of the snapshot {self.digest[:12]}.")
        with disk_errors(self.path.parent), self._unless_taken_over():
            _append(self.path, offset, data)
        self._hash.update(data)
        self.offset += len(data)

    def finish(self) -> File:
        """Make the whole part a snapshot of the spool.

        Raises BadData ``snapshot.too-short``; or ``snapshot.digest-differs``, and then all of it is thrown away.
        """
        self._refuse_if_taken_over()
        if self.offset != self.size:
            raise BadData(
                "snapshot.too-short",
                f"The snapshot {self.digest[:12]} ended after {self.offset} of {self.size} bytes.",
            )
        with disk_errors(self.path.parent), self._unless_taken_over():
            if self._hash.hexdigest() != self.digest:
                self.path.unlink(missing_ok=True)
                self._settled(self, False)
                raise BadData(
                    "snapshot.digest-differs", f"The bytes that came are not those of the snapshot {self.digest[:12]}."
                )
            os.replace(self.path, self.whole)
        self._settled(self, True)
        return File(str(self.whole), self.digest, self.size)

    def release(self) -> None:
        """Nothing more will be written now: let the room go that is not used. What is here stays for another try."""
        self._settled(self, False)

    @contextmanager
    def _unless_taken_over(self) -> Iterator[None]:
        """A try that begins just now removes what this one has written."""
        try:
            yield
        except FileNotFoundError:
            self._refuse_if_taken_over()
            raise

    def _refuse_if_taken_over(self) -> None:
        if self.taken_over:
            raise TryAgain("spool.taken-over", f"The snapshot {self.digest[:12]} is being fetched anew.")


def _checked(digest: str) -> str:
    if not DIGEST.fullmatch(digest):
        raise BadData("snapshot.bad-digest", f"{digest[:80]!r} is not a sha256 in lower-case hex.")
    return digest


def _append(path: Path, offset: int, data: bytes) -> None:
    """Write all of ``data`` at ``offset``, the end of the file, or none of it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(descriptor, data[written:] if written else data, offset + written)
    except OSError:
        os.ftruncate(descriptor, offset)
        raise
    finally:
        os.close(descriptor)
