"""The state folder of a node: its saved rounds, receipts and history; whole after a crash at any point.

A round is saved by files first, one row last. The files are flushed and renamed to names that no row knows yet; one
transaction then makes them the state. A crash before it leaves the old state and some unknown files, which the next
start removes; a crash after it leaves the new state, and at most the link ``export/adapter`` to mend.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from decaf_node.daemon.database import Database, SavedRow
from decaf_node.daemon.durable import PRIVATE_FILE, disk_errors, make_folder, sync, sync_tree
from decaf_node.daemon.reports import RoundReport
from decaf_node.errors import BadData, BadSettings, TryAgain
from decaf_node.link import File
from decaf_node.mesh.events import Edge, Receipt
from decaf_node.settings import StoreSection
from decaf_node.snapshot import digest_of, read_header

LOCK = "lock"
DATABASE = "rounds.sqlite"
STAGING = "staging"
FOLDERS = ("identity", "snapshots", "trainer", "export", STAGING)
SUFFIX = ".safetensors"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedState:
    """The last durable state. time: when it was saved, seconds since 1970. details: as given to ``commit_round``."""

    round: int
    mixes: int
    rank: int
    schema: str
    time: float
    snapshot: File
    trainer: File
    details: Mapping[str, Any]


def open_store(folder: Path, mesh: str, settings: StoreSection | None = None) -> Store:
    """Take the state folder for this process alone, make or mend its layout, and return it open.

    Raises TryAgain ``state.locked``, ``disk.full``; BadSettings ``state.other-mesh``, ``state.from-the-future``;
    BadData ``state.damaged``; NotAllowed ``disk.forbidden``, ``disk.not-a-folder``. Nothing is changed then.
    """
    with disk_errors(folder), ExitStack() as undone:
        make_folder(folder)
        store = _open(folder, mesh, settings or StoreSection())
        undone.callback(store.close)
        store.mend()
        undone.pop_all()
        return store


class Store:
    """The open state folder. Every call blocks while the disk works; any thread may call.

    Calls wait for each other, but for the file work of ``commit_round``, which may take seconds: one at a time.
    Besides what is named below, all of them raise as ``database.Database`` does.
    """

    def __init__(self, folder: Path, lock: BinaryIO, database: Database, settings: StoreSection) -> None:
        self.folder = folder
        self._lock = lock
        self._database = database
        self._settings = settings

    @property
    def adapter_folder(self) -> Path:
        """Where the last saved adapter can be loaded from."""
        return self.folder / "export" / "adapter"

    @property
    def scratch(self) -> Path:
        """Where the trainer may keep what need not outlive it."""
        return self.folder / "scratch"

    def exported(self) -> tuple[Path, int]:
        """Return the folder of the last saved adapter, and its round. Raises TryAgain ``export.nothing-saved``."""
        shown = _target(self.adapter_folder)
        for row in self._database.saved():
            if row.snapshot == shown:
                return self._exported(row.snapshot), row.round
        raise TryAgain("export.nothing-saved", "No round is saved yet; try again after the node's first saved round.")

    def close(self) -> None:
        """Give the folder free; a second time does nothing."""
        self._database.close()
        self._lock.close()

    def mend(self) -> None:
        """Bring the folder into the order that a crash may have left undone: ``open_store`` does so."""
        self._database.forget_lost_rounds()
        rows = self._database.saved()
        if rows and self._exported(rows[0].snapshot).is_dir() and _target(self.adapter_folder) != rows[0].snapshot:
            self._swap_link(self._new_link(rows[0].snapshot))
        self._collect_garbage()

    def check_schema(self, schema: str, parts: Mapping[str, Any]) -> None:
        """Keep the schema at its first use; afterwards refuse another one (BadSettings ``state.other-schema``)."""
        kept = json.loads(self._database.claim("schema", json.dumps({"schema": schema, "parts": parts})))
        if kept["schema"] != schema:
            raise BadSettings(
                "state.other-schema",
                f"The state folder {self.folder} was made with another {_differences(kept['parts'], parts)}; "
                "set that back, or choose another state folder.",
            )

    def check_identity(self, node: str) -> None:
        """Keep the node ID at its first use; afterwards refuse another one (BadSettings ``state.other-identity``)."""
        kept = self._database.claim("node", node)
        if kept != node:
            raise BadSettings(
                "state.other-identity",
                f"The state folder {self.folder} belongs to the node {kept[:8]}, but its identity/ holds the key of "
                f"{node[:8]}; put the old key back, or start with a new state folder.",
            )

    # --- saved rounds --------------------------------------------------------------------------------------------

    def saved(self) -> SavedState | None:
        """Return the newest saved round whose files are whole; None if none was ever saved. Reads all their bytes.

        Raises BadData ``state.damaged`` if there are saved rounds and none of them is whole.
        """
        rows = self._database.saved()
        for row in rows:
            snapshot = File(str(self._snapshot(row.snapshot)), row.snapshot, row.snapshot_bytes)
            trainer = File(str(self._trainer(row.trainer)), row.trainer, row.trainer_bytes)
            if _whole(snapshot) and _whole(trainer):
                kept = json.loads(self._database.about("schema") or '{"schema": ""}')
                return SavedState(
                    row.round, row.mixes, row.rank, kept["schema"], row.time, snapshot, trainer, row.details
                )
            logger.warning("The saved round %d in %s is damaged; an earlier one is used.", row.round, self.folder)
        if rows:
            raise BadData(
                "state.damaged",
                f"No saved round in {self.folder} is whole any more; restore the folder from a copy, or start with a "
                "new one.",
            )
        return None

    def staging(self, round: int) -> Path:
        """Return a fresh folder for the files of ``round``; what was staged before is gone."""
        with disk_errors(self.folder):
            self.discard_staging()
            return Path(tempfile.mkdtemp(prefix=f"{round}-", dir=self.folder / STAGING))

    def discard_staging(self) -> None:
        """Remove what was staged and will not be committed."""
        for left in (self.folder / STAGING).iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()

    def commit_round(
        self,
        round: int,
        mixes: int,
        snapshot: File,
        trainer: File,
        export_folder: Path,
        details: Mapping[str, Any],
        mixed: Iterable[Edge] = (),
        unheard: Iterable[Edge] = (),
    ) -> None:
        """Make the staged files the state of this node: durable when this returns, unchanged if it raises.

        mixed:   every edge that was mixed since the last commit; their receipts are dropped in the same step
        unheard: what ``unheard`` returns from now on

        Raises TryAgain ``disk.full``; BadData ``state.digest-differs`` or ``snapshot.damaged`` if the files are not
        what they are said to be. What was staged is gone in any case.
        """
        try:
            with disk_errors(self.folder):
                row = _row(round, mixes, snapshot, trainer, details)
                self._settle(snapshot, trainer, Path(export_folder))
                link = self._new_link(row.snapshot)
                self._database.save(row, mixed, unheard, self._settings.keep)
                self._swap_link(link)
        finally:
            self._collect_garbage()

    # --- receipts ------------------------------------------------------------------------------------------------

    def save_receipt(self, edge: Edge, round: int) -> None:
        """Keep our receipt of ``edge`` (its weight: the one we propose) before it is sent.

        It survives a crash of this process; a power cut may lose it, as it may lose the snapshots in the spool.
        """
        self._database.save_receipt(edge, round)

    def complete_receipt(self, peer: str, receipt: Receipt) -> None:
        """Keep the peer's receipt, as it came. It may come before ours is saved; one that fits none of ours is idle."""
        self._database.complete_receipt(peer, receipt)

    def unsaved(self) -> tuple[Edge, ...]:
        """Return the edges with both receipts that no saved round holds, each with the smaller weight."""
        return self._database.unsaved()

    def promised(self) -> tuple[Edge, ...]:
        """Return the edges of which only our receipt is kept, each with the weight that we proposed."""
        return self._database.promised()

    def unheard(self) -> tuple[Edge, ...]:
        """Return the edges whose receipts of ours the peers may not have heard at the last commit, oldest first."""
        return self._database.unheard()

    # --- history -------------------------------------------------------------------------------------------------

    def record_round(self, report: RoundReport) -> None:
        """Keep ``report`` in the history, instead of an earlier one of the same round."""
        self._database.record_round(report, self._settings.history)

    def mark_saved(self, round: int) -> None:
        """Mark the rounds up to ``round`` as saved; ``commit_round`` does so too."""
        self._database.mark_saved(round)

    def rounds(self, before: int = 0, limit: int = 100) -> list[RoundReport]:
        """Return at most ``limit`` rounds of the history, newest first; those before ``before`` unless it is 0."""
        return self._database.rounds(before, limit)

    # --- below ---------------------------------------------------------------------------------------------------

    def _snapshot(self, digest: str) -> Path:
        return self.folder / "snapshots" / f"{digest}{SUFFIX}"

    def _trainer(self, digest: str) -> Path:
        return self.folder / "trainer" / f"{digest}{SUFFIX}"

    def _exported(self, digest: str) -> Path:
        return self.folder / "export" / digest

    def _settle(self, snapshot: File, trainer: File, export_folder: Path) -> None:
        """Flush the staged files and move them to their names, which no row knows yet."""
        sync(Path(snapshot.path))
        sync(Path(trainer.path))
        sync_tree(export_folder)
        os.replace(snapshot.path, self._snapshot(snapshot.digest))
        os.replace(trainer.path, self._trainer(trainer.digest))
        exported = self._exported(snapshot.digest)
        if not exported.exists():  # else the same adapter was saved before
            os.rename(export_folder, exported)
        for folder in ("snapshots", "trainer", "export"):
            sync(self.folder / folder)

    def _new_link(self, digest: str) -> Path:
        link = self.folder / STAGING / "adapter"
        link.unlink(missing_ok=True)
        link.symlink_to(digest)
        return link

    def _swap_link(self, link: Path) -> None:
        """Point ``export/adapter`` at the saved round. If that fails the round is saved all the same."""
        try:
            os.replace(link, self.adapter_folder)
            sync(self.adapter_folder.parent)
        except OSError as error:
            logger.warning("%s still shows an earlier round: %s.", self.adapter_folder, error.strerror)

    def _collect_garbage(self) -> None:
        """Remove every file and folder that no saved round names. What cannot be removed is tried again later."""
        rows = self._database.saved()
        named = {self._snapshot(row.snapshot) for row in rows} | {self._trainer(row.trainer) for row in rows}
        exports = {row.snapshot for row in rows} | {self.adapter_folder.name, _target(self.adapter_folder)}
        try:
            for folder in ("snapshots", "trainer"):
                for path in set((self.folder / folder).iterdir()) - named:
                    path.unlink()
            for path in (self.folder / "export").iterdir():
                if path.name not in exports:  # renamed first, so that a half-removed one is never taken for whole
                    path.rename(self.folder / STAGING / f"{path.name}.old")
            self.discard_staging()
        except OSError as error:
            logger.warning("Old files in %s cannot be removed: %s.", self.folder, error.strerror)


def _open(folder: Path, mesh: str, settings: StoreSection) -> Store:
    with ExitStack() as undone:
        lock = undone.enter_context(_lock(folder))
        store = Store(folder, lock, _database(folder, mesh), settings)
        undone.pop_all()
        return store


def _lock(folder: Path) -> BinaryIO:
    """Return the open lock file; whoever has it open and locked has the folder."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    lock = os.fdopen(descriptor, "r+b", buffering=0)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate()
        lock.write(f"{os.getpid()}\n".encode())
    except BlockingIOError:
        holder = lock.read(32).decode(errors="replace").strip() or "unknown"
        lock.close()
        raise TryAgain(
            "state.locked",
            f"The state folder {folder} is in use by another decaf-node (PID {holder}); stop that one, or choose "
            "another folder with --state.",
        ) from None
    except OSError:
        lock.close()
        raise
    return cast(BinaryIO, lock)


def _database(folder: Path, mesh: str) -> Database:
    """Open the database of the locked folder and make sure that it is of this mesh."""
    for name in FOLDERS:
        make_folder(folder / name)
    path = folder / DATABASE
    if not path.exists() and any((folder / "snapshots").iterdir()):
        raise BadData(
            "state.damaged",
            f"{path} is missing but snapshots are there; restore it from a copy, or start with a new state folder.",
        )
    with ExitStack() as undone:
        database = Database(path)
        undone.callback(database.close)
        sync(folder)
        _refuse_other_mesh(folder, database.claim("mesh", mesh), mesh)
        undone.pop_all()
        return database


def _refuse_other_mesh(folder: Path, kept: str, mesh: str) -> None:
    if kept != mesh:
        raise BadSettings(
            "state.other-mesh",
            f"The state folder {folder} belongs to the mesh {kept!r}, not to {mesh!r}; set mesh.name back, or choose "
            "another folder with --state.",
        )


def _row(round: int, mixes: int, snapshot: File, trainer: File, details: Mapping[str, Any]) -> SavedRow:
    for file in (snapshot, trainer):
        if not _whole(file):
            raise BadData("state.digest-differs", f"{file.path} is not what the trainer said it is; it was not saved.")
    rank = read_header(Path(snapshot.path)).rank
    return SavedRow(
        round,
        mixes,
        rank,
        time.time(),
        snapshot.digest,
        snapshot.size_bytes,
        trainer.digest,
        trainer.size_bytes,
        details,
    )


def _whole(file: File) -> bool:
    path = Path(file.path)
    try:
        return path.stat().st_size == file.size_bytes and digest_of(path) == file.digest
    except FileNotFoundError:
        return False


def _target(link: Path) -> str:
    return os.readlink(link) if link.is_symlink() else ""


def _differences(kept: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Name the parts of a schema that differ: ``rank (8 before, 16 now) and task (...)``."""
    names = [name for name in sorted({*kept, *given}) if kept.get(name) != given.get(name)]
    said = [
        f"{name.replace('_', ' ')} ({_brief(kept.get(name))} before, {_brief(given.get(name))} now)" for name in names
    ]
    return " and ".join(said) or "schema"


def _brief(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"
