"""``rounds.sqlite``: which rounds are saved, which receipts are due, and the history of rounds.

What must survive a power cut (a saved round) is committed with ``synchronous=FULL``. Receipts and history use NORMAL:
a crash of the process loses nothing, a power cut may lose the last of them and never more; to ask for more would wear
flash memory for nothing, as the spool that receipts speak of is never flushed either. The file is held exclusively,
so there is no shared-memory file, and its log (WAL) is bounded: nobody else reads, every checkpoint empties it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from decaf_node.daemon.durable import full
from decaf_node.daemon.reports import EdgeReport, RoundReport
from decaf_node.errors import BadData, BadSettings, DecafError, NotAllowed, TryAgain
from decaf_node.mesh.events import Edge, Receipt

BUSY_SECONDS = 2.0
LOG_PAGES = 512
LOG_BYTES = 4 * 1024 * 1024
FORGET_ROUNDS = 256  # a receipt whose edge was neither completed nor mixed for so many rounds never will be
EARLY_RECEIPTS = 1024
FOREVER = 2**63 - 1  # no round number is larger
PAGE = "SELECT report, saved FROM rounds WHERE round < ? ORDER BY round DESC LIMIT ?"
TRIM = "DELETE FROM rounds WHERE number <= (SELECT max(number) FROM rounds) - ?"
FORGET_LOST = "DELETE FROM rounds WHERE saved = 0"

# One entry for each version of the file; an older file goes through those that it lacks.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE saved (number INTEGER PRIMARY KEY, round INTEGER NOT NULL, mixes INTEGER NOT NULL,"
        " rank INTEGER NOT NULL, time REAL NOT NULL, snapshot TEXT NOT NULL, snapshot_bytes INTEGER NOT NULL,"
        " trainer TEXT NOT NULL, trainer_bytes INTEGER NOT NULL, details TEXT NOT NULL)",
        "CREATE TABLE receipts (peer TEXT NOT NULL, own TEXT NOT NULL, theirs TEXT NOT NULL, proposed REAL NOT NULL,"
        " answered REAL, round INTEGER NOT NULL, PRIMARY KEY (peer, own, theirs)) WITHOUT ROWID",
        "CREATE TABLE rounds (number INTEGER PRIMARY KEY, round INTEGER NOT NULL UNIQUE, saved INTEGER NOT NULL,"
        " report TEXT NOT NULL)",
        "CREATE INDEX rounds_not_saved ON rounds (round) WHERE saved = 0",
    ),
    (
        "CREATE TABLE unheard (number INTEGER PRIMARY KEY, peer TEXT NOT NULL, own TEXT NOT NULL,"
        " theirs TEXT NOT NULL, proposed REAL NOT NULL)",
    ),
    (),  # reports have clip factors from here on, which older versions cannot read
)


@dataclass(frozen=True)
class SavedRow:
    """A saved round; snapshot and trainer are the digests of its files."""

    round: int
    mixes: int
    rank: int
    time: float
    snapshot: str
    snapshot_bytes: int
    trainer: str
    trainer_bytes: int
    details: Mapping[str, Any]


class Database:
    """The open file. Any thread may call; calls wait for each other, and block while the disk works.

    Every method raises TryAgain ``disk.full`` (nothing was changed), ``disk.failed`` or ``state.locked``, NotAllowed
    ``disk.forbidden``, or BadData ``state.damaged``.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        """read_only: of a node that does not run; the file must be there, and nothing of it is changed."""
        self._path = path
        self._lock = threading.RLock()
        self._early: dict[str, Receipt] = {}
        with self._errors():
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}",
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                uri=True,
            )
        if read_only:
            return
        try:
            self._prepare()
        except DecafError:
            self._connection.close()
            raise

    def close(self) -> None:
        with self._lock, self._errors():
            self._connection.close()

    # --- about this file -----------------------------------------------------------------------------------------

    def claim(self, key: str, value: str) -> str:
        """Keep ``value`` under ``key`` unless something is there; return what is there now."""
        with self._transaction(durable=True) as run:
            run("INSERT OR IGNORE INTO about VALUES (?, ?)", (key, value))
            return str(run("SELECT value FROM about WHERE key = ?", (key,)).fetchone()[0])

    def about(self, key: str) -> str | None:
        rows = self._read("SELECT value FROM about WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    # --- saved rounds --------------------------------------------------------------------------------------------

    def save(self, row: SavedRow, mixed: Iterable[Edge], unheard: Iterable[Edge], keep: int) -> None:
        """Record a saved round; drop in the same step the receipts that it covers and all but ``keep`` rows.

        unheard: what ``unheard`` returns from now on
        """
        with self._transaction(durable=True) as run:
            run(
                "INSERT INTO saved (round, mixes, rank, time, snapshot, snapshot_bytes, trainer, trainer_bytes,"
                " details) VALUES (:round, :mixes, :rank, :time, :snapshot, :snapshot_bytes, :trainer,"
                " :trainer_bytes, :details)",
                {**asdict(row), "details": json.dumps(row.details)},
            )
            run("DELETE FROM saved WHERE number <= (SELECT max(number) FROM saved) - ?", (keep,))
            for edge in mixed:
                run(
                    "DELETE FROM receipts WHERE peer = ? AND own = ? AND theirs = ?", (edge.peer, edge.own, edge.theirs)
                )
            run("DELETE FROM receipts WHERE round <= ?", (row.round - FORGET_ROUNDS,))
            run("DELETE FROM unheard")
            for edge in unheard:
                run(
                    "INSERT INTO unheard (peer, own, theirs, proposed) VALUES (:peer, :own, :theirs, :weight)",
                    asdict(edge),
                )
            run("UPDATE rounds SET saved = 1 WHERE saved = 0 AND round <= ?", (row.round,))

    def saved(self) -> list[SavedRow]:
        """Return the saved rounds, newest first."""
        rows = self._read(
            "SELECT round, mixes, rank, time, snapshot, snapshot_bytes, trainer, trainer_bytes, details FROM saved"
            " ORDER BY number DESC"
        )
        return [SavedRow(*(*values, json.loads(details))) for *values, details in rows]

    # --- receipts ------------------------------------------------------------------------------------------------

    def save_receipt(self, edge: Edge, round: int) -> None:
        """Keep our receipt of ``edge``, made in our ``round``; its weight is the one that we propose."""
        with self._transaction() as run:
            early = self._early.get(edge.peer)
            answered = early.weight if early and (early.theirs, early.own) == (edge.own, edge.theirs) else None
            run(
                "INSERT INTO receipts VALUES (:peer, :own, :theirs, :weight, :answered, :round)"
                " ON CONFLICT DO UPDATE SET proposed = :weight, answered = coalesce(answered, :answered)",
                {**asdict(edge), "answered": answered, "round": round},
            )

    def complete_receipt(self, peer: str, receipt: Receipt) -> None:
        """Keep what the peer's receipt says (own and theirs as the peer sees them), if it answers one of ours.

        If it comes before ours is saved, it is remembered until then: the last one of each peer.
        """
        with self._transaction() as run:
            changed = run(
                "UPDATE receipts SET answered = ? WHERE peer = ? AND own = ? AND theirs = ?",
                (receipt.weight, peer, receipt.theirs, receipt.own),
            )
            if not changed.rowcount:
                self._early.pop(peer, None)
                self._early[peer] = receipt
                if len(self._early) > EARLY_RECEIPTS:
                    del self._early[next(iter(self._early))]

    def unsaved(self) -> tuple[Edge, ...]:
        """Return the edges whose receipts went both ways and that no saved round holds, oldest first."""
        rows = self._read(
            "SELECT peer, own, theirs, min(proposed, answered) FROM receipts WHERE answered IS NOT NULL"
            " ORDER BY round, peer, own, theirs"
        )
        return tuple(Edge(*row) for row in rows)

    def promised(self) -> tuple[Edge, ...]:
        """Return the edges of which only our receipt is kept, oldest first; weight: as we proposed."""
        rows = self._read(
            "SELECT peer, own, theirs, proposed FROM receipts WHERE answered IS NULL ORDER BY round, peer, own, theirs"
        )
        return tuple(Edge(*row) for row in rows)

    def unheard(self) -> tuple[Edge, ...]:
        """Return what was given with the last saved round; weight: as we proposed."""
        return tuple(
            Edge(*row) for row in self._read("SELECT peer, own, theirs, proposed FROM unheard ORDER BY number")
        )

    # --- history -------------------------------------------------------------------------------------------------

    def record_round(self, report: RoundReport, history: int) -> None:
        """Keep ``report`` instead of an earlier one of its round, and no more than ``history`` rows in all."""
        with self._transaction() as run:
            run(
                "INSERT INTO rounds (round, saved, report) VALUES (:round,"
                " :saved OR :round <= (SELECT ifnull(max(round), -1) FROM saved), :report)"
                " ON CONFLICT (round) DO UPDATE SET report = excluded.report, saved = saved OR excluded.saved",
                {"round": report.round, "saved": report.saved, "report": json.dumps(asdict(report))},
            )
            run(TRIM, (history,))

    def mark_saved(self, round: int) -> None:
        with self._transaction() as run:
            run("UPDATE rounds SET saved = 1 WHERE saved = 0 AND round <= ?", (round,))

    def forget_lost_rounds(self) -> None:
        """Drop the history of rounds that no saved round holds: a crash has undone them."""
        with self._transaction() as run:
            run(FORGET_LOST)

    def rounds(self, before: int, limit: int) -> list[RoundReport]:
        """Return at most ``limit`` rounds, newest first; only those before ``before``, unless it is 0."""
        rows = self._read(PAGE, (before or FOREVER, limit))
        return [_report(json.loads(report), bool(saved)) for report, saved in rows]

    # --- below ---------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        with self._errors():
            for pragma in (
                "locking_mode = EXCLUSIVE",  # before WAL: then its index lives in memory, not in a file
                "journal_mode = WAL",
                "synchronous = NORMAL",
                f"wal_autocheckpoint = {LOG_PAGES}",
                f"journal_size_limit = {LOG_BYTES}",
                "temp_store = MEMORY",
            ):
                self._connection.execute(f"PRAGMA {pragma}").fetchall()
        with self._transaction(durable=True) as run:
            version = int(run("PRAGMA user_version").fetchone()[0])
            if version > len(MIGRATIONS):
                raise BadSettings(
                    "state.from-the-future",
                    f"{self._path} was written by a newer decaf-node; update this one, or choose another state folder.",
                )
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    run(statement)
            run(f"PRAGMA user_version = {len(MIGRATIONS)}")

    @contextmanager
    def _transaction(self, durable: bool = False) -> Iterator[Any]:
        """All of the statements or none. durable: also after a power cut."""
        run = self._connection.execute
        with self._lock, self._errors():
            run(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            run("BEGIN IMMEDIATE")
            try:
                yield run
                run("COMMIT")
            finally:
                if self._connection.in_transaction:
                    run("ROLLBACK")

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock, self._errors():
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise self._explain(str(error)) from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, (sqlite3.ProgrammingError, sqlite3.IntegrityError)):
                raise
            raise BadData(
                "state.damaged",
                f"{self._path} is damaged ({error}); restore the state folder from a copy, or start with a new one.",
            ) from error

    def _explain(self, problem: str) -> DecafError:
        if "full" in problem:
            return full(self._path.parent)
        if "locked" in problem:
            return TryAgain("state.locked", f"{self._path} is in use by another program; close that one first.")
        if "readonly" in problem:
            return NotAllowed("disk.forbidden", f"{self._path} cannot be written; let the user of decaf-node do so.")
        return TryAgain("disk.failed", f"{self._path} cannot be used: {problem}; look at the disk.")


def _report(document: dict[str, Any], saved: bool) -> RoundReport:
    edges = tuple(EdgeReport(**edge) for edge in document.pop("edges"))
    return RoundReport(**{**document, "edges": edges, "saved": saved})
