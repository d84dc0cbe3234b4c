"""Start and end the demo's processes, so that none is left behind, whatever ends the demo."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from decaf_node.cli.ending import undisturbed
from decaf_node.errors import Bug, DecafError, TryAgain, from_exit_code
from decaf_node.settings import ENVIRONMENT_PREFIX

LAST_WORDS = re.compile(r"(?:decaf-node:|error|ERROR) +(?P<message>.*) \[(?P<reason>[a-z]+(?:[.-][a-z]+)+)\]$")
STOP_SECONDS = 12.0  # a node promises a clean stop within 10 s

# The child asks the kernel for SIGTERM when the demo dies, even by kill -9, and becomes the real program.
LAUNCHER = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGTERM); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); os.execv(sys.argv[2], sys.argv[2:])"
)


def start_python(arguments: Sequence[str], log: Path, stdout: int | None = None) -> subprocess.Popen[str]:
    """Start ``python arguments`` in a session of its own, so that Ctrl-C on the terminal reaches only the demo.

    Its stderr, and its stdout where ``stdout`` names nothing else, are appended to ``log``. It sees none of the
    user's own node settings, asks no model hub, and has its temporary files beside its log. Call it from the main
    thread: the child lives as long as that.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    ours = offline | {"TOKENIZERS_PARALLELISM": "false", "TMPDIR": str(log.parent)}
    with log.open("a") as file:
        return subprocess.Popen(  # noqa: S603 - our own program and words, no shell
            [sys.executable, "-c", LAUNCHER, str(os.getpid()), sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file if stdout is None else stdout,
            stderr=file,
            text=True,
            start_new_session=True,
            env=kept | ours,
        )


def last_words(log: Path, code: int) -> DecafError:
    """Return the error that a process has ended with, from the sentence at the end of its log."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = text.strip().splitlines() or ["nothing"]
    for line in reversed(lines[-20:]):
        if said := LAST_WORDS.search(line):
            return from_exit_code(code, said["reason"], said["message"])
    if code < 0:
        name = signal.Signals(-code).name
        return TryAgain("demo.process-killed", f"A process of the demo was killed ({name}); run the demo again.")
    return Bug("demo.process-ended", f"A process of the demo has ended with code {code}; it said last: {lines[-1]}")


def stop_all(processes: Sequence[subprocess.Popen[str]], sockets: Sequence[Path] = ()) -> None:
    """End ``processes``, and whoever else listens on ``sockets`` (a node that a person has started again).

    First SIGTERM, so that they can save; what is still there after 12 s is killed with its whole group. A Ctrl-C
    in between is heeded afterwards.
    """
    with undisturbed():
        _stop_all(processes, sockets)


def _stop_all(processes: Sequence[subprocess.Popen[str]], sockets: Sequence[Path]) -> None:
    strangers = [pid for pid in map(listener, sockets) if pid and pid not in {process.pid for process in processes}]
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for pid in strangers:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        _close(process.stdout)
    for pid in strangers:
        _wait_gone(pid, until)


def listener(path: Path) -> int | None:
    """Return the process that listens on the Unix socket ``path``, if one does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return None
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        return int(pid)


def _wait_gone(pid: int, until: float) -> None:
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > until:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.05)


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        stream.close()
