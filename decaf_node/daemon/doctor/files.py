"""The node's folders: whose they are, what may be done there, and what is kept in them. Nothing is written."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from decaf_node.daemon.doctor.finding import Finding, failure, unseen, warning, well
from decaf_node.daemon.doctor.running import lock_holder
from decaf_node.daemon.durable import disk_errors, explain, refuse_shared
from decaf_node.daemon.store import DATABASE, LOCK
from decaf_node.errors import BadData, DecafError, NotAllowed
from decaf_node.places import Places

LAYER = "files"
ROOT = 0


@dataclass(frozen=True)
class Kept:
    """What the history file says. time: of the last saved round, seconds since 1970."""

    node: str = ""
    schema: str = ""
    base: str = ""
    time: float = 0.0


def look_at_files(places: Places) -> list[Finding]:
    """Look at the state and the runtime folder."""
    return [*_look_at_folder("state folder", places.state), *_look_at_folder("runtime folder", places.runtime)]


def _look_at_folder(subject: str, folder: Path) -> list[Finding]:
    try:
        with disk_errors(folder):
            return list(_uses(subject, folder))
    except DecafError as error:
        return [failure(LAYER, subject, error)]


def _uses(subject: str, folder: Path) -> Iterator[Finding]:
    """Yield what may be done with the folder. Raises OSError and NotAllowed where too little."""
    try:
        owner, user = folder.stat().st_uid, os.geteuid()
    except FileNotFoundError:
        yield unseen(LAYER, subject, f"{folder} is not there yet; `decaf-node run` makes it")
        return
    except PermissionError:
        raise _of_another(folder, "another user") from None
    if owner != user and user != ROOT:
        raise _of_another(folder, f"another user (number {owner})")
    if subject == "runtime folder" and owner == user:
        refuse_shared(folder)
    for place in (folder, *(entry for entry in sorted(folder.iterdir()) if entry.is_dir())):
        _demand_use(place)
    if owner == user:
        yield well(LAYER, subject, f"{folder} belongs to this user, who may write there")
        return
    yield warning(
        LAYER,
        subject,
        "files.other-user",
        f"{folder} belongs to another user (number {owner}), and root may do everything there; to see what its owner "
        "may, run the doctor as that user.",
    )


def _of_another(folder: Path, owner: str) -> NotAllowed:
    return NotAllowed(
        "files.other-user", f"{folder} belongs to {owner}, so it cannot be looked at; be the user of the daemon."
    )


def _demand_use(folder: Path) -> None:
    """Raise OSError unless this user may read and write there."""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))
    if not folder.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def look_at_history(state: Path) -> tuple[Kept, list[Finding]]:
    """Return what the history file says, if no daemon has it open; and what was found."""
    path = state / DATABASE
    if holder := lock_holder(state / LOCK):
        return Kept(), [unseen(LAYER, DATABASE, f"process {holder} has it open, and writes to it")]
    try:
        if not path.exists():
            return Kept(), [unseen(LAYER, DATABASE, "there is none yet")]
        kept = _read(path)
    except OSError as error:
        return Kept(), [failure(LAYER, DATABASE, explain(error, state))]
    except sqlite3.OperationalError:
        return Kept(), [unseen(LAYER, DATABASE, "its last words are in its log, which the next start reads")]
    except (sqlite3.DatabaseError, ValueError, KeyError, TypeError):
        damaged = BadData("state.damaged", f"{path} is damaged: it is no history of rounds any more.")
        return Kept(), [failure(LAYER, DATABASE, damaged)]
    return kept, [well(LAYER, DATABASE, f"{path} can be read")]


def _read(path: Path) -> Kept:
    """Raises OSError and sqlite3.DatabaseError."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)) as database:
        about = dict(database.execute("SELECT key, value FROM about"))
        saved = database.execute("SELECT max(time) FROM saved").fetchone()
    schema = json.loads(about.get("schema", '{"schema": "", "parts": {}}'))
    return Kept(about.get("node", ""), schema["schema"], str(schema["parts"].get("base", "")), float(saved[0] or 0.0))
