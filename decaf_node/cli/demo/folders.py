"""Where the demo puts things: a work folder that goes away, and a folder for the results that stays."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from decaf_node.errors import NotAllowed

LONGEST_PARENT = 60  # characters; below it lie the control sockets, whose paths must be short


def make_output(chosen: Path | None) -> Path:
    """Return a new or empty folder for the results. Raises NotAllowed if the chosen one holds something."""
    try:
        if chosen is not None:
            chosen.mkdir(parents=True, exist_ok=True)
            if any(chosen.iterdir()):
                raise NotAllowed("demo.output-not-empty", f"{chosen} is not empty; name another folder with --output.")
            return chosen.absolute()
        return _numbered(Path("decaf-demo").absolute())
    except OSError as error:
        raise NotAllowed(
            "demo.cannot-write", f"The results cannot be written here ({error}); name a folder with --output."
        ) from error


def _numbered(parent: Path) -> Path:
    """Make and return the first free of ``parent/1``, ``parent/2``, ...: two demos at a time do not meet."""
    parent.mkdir(exist_ok=True)
    (parent / ".gitignore").write_text("*\n")
    for number in itertools.count(1):
        with suppress(FileExistsError):
            (parent / str(number)).mkdir()
            return parent / str(number)
    raise AssertionError("numbers do not end")


@contextmanager
def work_folder(keep: bool) -> Iterator[Path]:
    """Give a folder for the nodes, with a path short enough for Unix sockets; take it away again unless ``keep``."""
    parent = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="decaf-", dir=parent if len(parent) <= LONGEST_PARENT else "/tmp"))  # noqa: S108 - mkdtemp draws the name
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
