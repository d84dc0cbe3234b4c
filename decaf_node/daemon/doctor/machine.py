"""Machine, model and data, looked at by a child process: torch is never loaded here, and what hangs is ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import Any, get_args

from decaf_node.daemon.doctor.finding import EVERYTHING, LAYERS, Finding, Mark, failure, unseen, warning
from decaf_node.daemon.logs import printable
from decaf_node.daemon.trainer import LEASH
from decaf_node.errors import TryAgain
from decaf_node.places import Places
from decaf_node.settings import Settings

CHECKUP = ("-m", "decaf_node.training.checkup")
REMEMBERED = "fingerprints.json"  # in the runtime folder, as the trainer calls it
SECONDS = 120.0  # to load torch and transformers on a slow machine, and to read the data
LINE_BYTES = 64 * 1024
LINES = 64
LAST_WORDS_BYTES = 64 * 1024


@dataclass
class Machine:
    """What the child has found. base: fingerprint of the base model; empty if it did not come so far."""

    findings: list[Finding] = field(default_factory=list)
    base: str = ""


async def look_at_machine(settings: Settings, places: Places, seconds: float = SECONDS) -> Machine:
    """Let a child look; it is killed after ``seconds``, and what it has said by then counts."""
    machine = Machine()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *LEASH,
        str(os.getpid()),
        *CHECKUP,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=LINE_BYTES,
    )
    try:
        asked = {"settings": settings.model_dump(mode="json"), "remembered": str(places.runtime / REMEMBERED)}
        last_words = await asyncio.wait_for(_converse(process, json.dumps(asked).encode(), machine), seconds)
    except asyncio.TimeoutError:
        slow = f"It was not done within {seconds:g} s, and was ended; the trainer takes its time too."
        machine.findings.append(warning("machine", "check", "machine.too-slow", slow))
        return _completed(machine, "there was no time")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if process.returncode:
        machine.findings.append(failure("machine", "check", _crashed(process.returncode, last_words)))
    return _completed(machine, "because of what is wrong above")


async def _converse(process: asyncio.subprocess.Process, asked: bytes, machine: Machine) -> bytes:
    """Hand over what is asked and take what is found; return what it wrote to stderr."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(_last_words(process.stderr))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(asked)
        process.stdin.write_eof()
        await process.stdin.drain()
    for _ in range(LINES):
        with contextlib.suppress(ValueError):  # a library has printed a line without end
            line = await process.stdout.readline()
            if not line:
                break
            _take(line, machine)
    await _last_words(process.stdout)  # whatever else it prints must not block it
    await process.wait()
    return await errors


async def _last_words(stream: asyncio.StreamReader) -> bytes:
    """Read to the end; return the last of it."""
    last = b""
    while chunk := await stream.read(LAST_WORDS_BYTES):
        last = (last + chunk)[-LAST_WORDS_BYTES:]
    return last


def _take(line: bytes, machine: Machine) -> None:
    try:
        said: dict[str, Any] = json.loads(line)
        machine.base = said.get("base", machine.base)
        if "base" not in said:
            machine.findings.append(_finding(said))
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # a library has printed something


def _finding(said: dict[str, Any]) -> Finding:
    if said["layer"] not in LAYERS or said["mark"] not in get_args(Mark):
        raise ValueError(said["layer"])
    words = {key: printable(str(said[key])) for key in ("subject", "message", "reason")}
    return Finding(said["layer"], mark=said["mark"], exit_code=int(said["exit_code"]), **words)


def _crashed(status: int, last_words: bytes) -> TryAgain:
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
    words = last_words.decode(errors="replace").strip().splitlines()
    said = f" It said: {printable(words[-1])}" if words else ""
    return TryAgain("machine.crashes", f"The process that loads torch and transformers {how}.{said}")


def _completed(machine: Machine, why: str) -> Machine:
    """Add the layers that the child said nothing of."""
    for layer in ("machine", "model", "data"):
        if not any(finding.layer == layer for finding in machine.findings):
            machine.findings.append(unseen(layer, EVERYTHING, why))
    return machine
