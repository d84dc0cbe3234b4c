"""Have a child process find something out that takes torch: see ``training.answering``. None is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from decaf_node.cli.ending import ending_cleanly
from decaf_node.cli.output import console
from decaf_node.daemon.trainer import LEASH
from decaf_node.errors import TryAgain, from_exit_code


@contextlib.contextmanager
def scratch_folder(command: str) -> Iterator[Path]:
    """Give a private folder that is gone afterwards, also where SIGTERM or SIGHUP ends the command."""
    with ending_cleanly(), tempfile.TemporaryDirectory(prefix=f"decaf-node-{command}-") as folder:
        yield Path(folder)


def converse(module: str, asked: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Have ``python -m module`` answer; say what it does on stderr, where that is a terminal, and return what it finds.

    scratch: for its temporary files; who gave it removes it, whatever ends the child
    Raises what the child says, and TryAgain ``child.crashed``.
    """
    log = scratch / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603 - ourselves, no shell
            [sys.executable, *LEASH, str(os.getpid()), "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C is for us
            env={**os.environ, "TMPDIR": str(scratch)},
        )
    try:
        with console(to_errors=True).status("loading torch") as status:
            found = _answer(process, asked, status.update)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError), process:
            pass  # closes what leads to it, and waits
    if found is None:
        raise _crashed(process.returncode, log)
    return found


def _answer(
    process: subprocess.Popen[str], asked: dict[str, Any], show: Callable[[str], None]
) -> dict[str, Any] | None:
    """Return what is found; None if the child ends without a word of it. show: what it does meanwhile."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(asked))
        process.stdin.close()
    for line in process.stdout:
        said = _said(line)
        if "doing" in said:
            show(said["doing"])
        elif "found" in said:
            return dict(said["found"])
        elif "error" in said:
            error = said["error"]
            raise from_exit_code(error["exit_code"], error["reason"], error["message"])
    process.wait()
    return None


def _said(line: str) -> dict[str, Any]:
    """Return what the child tells; nothing where a library has printed something."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _crashed(status: int, log: Path) -> TryAgain:
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
    words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = f" It said: {words[-1]}" if words else ""
    return TryAgain("child.crashed", f"The process that loads torch {how}.{said}")
