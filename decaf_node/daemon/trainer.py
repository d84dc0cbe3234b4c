"""The trainer as a child process: started, listened to, started again with back-off, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from decaf_node import link
from decaf_node.daemon.durable import disk_errors, make_empty
from decaf_node.daemon.link_server import LinkServer
from decaf_node.daemon.logs import fields, printable
from decaf_node.errors import DecafError, TryAgain, from_exit_code
from decaf_node.settings import TrainingSection

log = logging.getLogger(__name__)

LEASH = ("-m", "decaf_node.daemon.leash")
WORKER = ("-m", "decaf_node.training.worker")
LAUNCHER = ("-m", "decaf_node.training.launch", "--processes")
FIRST_RESTART_SECONDS = 1.0
LAST_WORDS_SECONDS = 2.0  # for a trainer that has failed to end by itself, and to read what it said last
LOOKS = 20  # at whether a trainer is heard of, in limits.trainer_silence
OUTPUT_BYTES = 2000  # read at a time; a longer line is cut in pieces of at most twice as much


@dataclass(frozen=True)
class Retry:
    """limits.trainer_restarts, limits.trainer_backoff and limits.trainer_silence."""

    restarts: int
    backoff: float
    silence: float


def command_of(training: TrainingSection, worker: Sequence[str] = WORKER) -> Sequence[str] | None:
    """Return what Python runs as the trainer, before ``--socket PATH``; None if somebody else starts it."""
    if training.trainer == "external":
        return None
    return worker if training.processes == 1 else (*LAUNCHER, str(training.processes))


class Trainer:
    """Keeps one trainer process alive. command: what Python runs, before ``--socket PATH``; None: it is external.

    busy: says whether the trainer is to work now, so that it must be heard of
    scratch: where it may keep temporary copies of private data; emptied before each start, as a killed one leaves them.
    """

    def __init__(
        self,
        server: LinkServer,
        socket: Path,
        scratch: Path,
        command: Sequence[str] | None,
        retry: Retry,
        busy: Callable[[], bool],
    ) -> None:
        self.pid = 0
        self.restarts = 0
        self._server = server
        self._socket = socket
        self._scratch = scratch
        self._command = command
        self._retry = retry
        self._busy = busy
        self._heard = 0.0
        self._stopping = asyncio.Event()
        self._failed = asyncio.Event()
        self._failure: link.TrainerFailed | None = None
        self._failures = 0

    @property
    def stopping(self) -> bool:
        """It was asked to end."""
        return self._stopping.is_set()

    @property
    def external(self) -> bool:
        """Somebody else starts the trainer."""
        return self._command is None

    async def run(self) -> None:
        """Start the trainer, and again whenever it ends, until ``stop``. Raises DecafError when that cannot help."""
        while True:
            self._failed.clear()
            self._failure = None
            ended = await (self._wait() if self._command is None else self._one_life(self._command))
            if self._stopping.is_set():
                return
            wait = self._count_failure(ended)
            self.restarts += 1
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)

    def heard(self) -> None:
        """The trainer has said something."""
        self._heard = time.monotonic()

    def failed(self, failure: link.TrainerFailed) -> None:
        """The trainer has said its last words."""
        self._failure = failure
        self._failed.set()

    def unheard(self) -> None:
        """The link is broken: a trainer of ours that lives on is of no use."""
        if self.external:
            self.pid = 0
        else:
            self._failed.set()

    def round_done(self) -> None:
        """A round is finished: failures in a row are counted from here."""
        self._failures = 0

    def stop(self) -> None:
        """Ask the trainer to end; ``run`` returns when it has. Cancelling ``run`` kills it."""
        self._stopping.set()
        self._server.send(link.Stop())

    async def _wait(self) -> str:
        """Wait until an external trainer fails, or for ``stop``."""
        ends = {asyncio.create_task(event.wait()) for event in (self._failed, self._stopping)}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        return "it failed"

    async def _one_life(self, command: Sequence[str]) -> str:
        """Run the trainer once; return how it ended."""
        with disk_errors(self._scratch):
            make_empty(self._scratch)
        output, child_output = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *LEASH,
                str(os.getpid()),
                *command,
                "--socket",
                str(self._socket),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=child_output,
                stderr=child_output,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(self._scratch)},
            )
        finally:
            os.close(child_output)
        logging_output = asyncio.create_task(_log_output(output))
        exited = asyncio.create_task(process.wait())
        self.pid = process.pid
        log.debug("trainer started", extra=fields(pid=process.pid))
        try:
            await self._until_over(exited)
        finally:
            _kill_group(process.pid)
            await exited
            self.pid = 0
            await asyncio.wait({logging_output}, timeout=LAST_WORDS_SECONDS)
            logging_output.cancel()
        await self._server.end(LAST_WORDS_SECONDS)
        return _how(exited.result())

    async def _until_over(self, exited: asyncio.Task[int]) -> None:
        """Return when the process has ended, or must be killed. One that stops may take its time: see ``stop``."""
        failed, silent = asyncio.create_task(self._failed.wait()), asyncio.create_task(self._silent())
        await asyncio.wait({exited, failed, silent}, return_when=asyncio.FIRST_COMPLETED)
        failed.cancel()
        silent.cancel()
        await asyncio.wait({exited}, timeout=LAST_WORDS_SECONDS)

    async def _silent(self) -> None:
        """Return when the trainer is to work and has said nothing for too long: it hangs."""
        self.heard()
        while time.monotonic() - self._heard < self._retry.silence:
            await asyncio.sleep(self._retry.silence / LOOKS)
            if not self._busy():
                self.heard()
        log.warning(
            "The trainer has said nothing for %g s (limits.trainer_silence), so it is ended.", self._retry.silence
        )

    def _count_failure(self, ended: str) -> float:
        """Return how long to wait before the next start."""
        failure = self._failure
        if failure is not None and failure.fatal:
            raise from_exit_code(failure.exit_code, failure.reason, failure.message)
        self._failures += 1
        said = f"{ended}: {printable(failure.message)}" if failure is not None else ended
        if self._failures >= self._retry.restarts:
            raise self._hopeless(said)
        wait: float = min(FIRST_RESTART_SECONDS * 2.0 ** (self._failures - 1), self._retry.backoff)
        log.warning("The trainer is gone (%s); starting it again in %g s.", said, wait, extra=fields(wait=wait))
        return wait

    def _hopeless(self, said: str) -> DecafError:
        failure = self._failure
        if failure is not None:
            return from_exit_code(failure.exit_code, failure.reason, failure.message)
        return TryAgain(
            "trainer.keeps-ending",
            f"The trainer has ended {self._failures} times in a row without finishing a round, at last so: {said}; "
            "what it wrote is in the log.",
        )


def _how(status: int) -> str:
    if status >= 0:
        return f"it ended with exit code {status}"
    return f"it was killed by {signal.Signals(-status).name}"


def _kill_group(pid: int) -> None:
    """Kill what is left of the trainer and of the processes it started: it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


async def _log_output(descriptor: int) -> None:
    """Log what the trainer writes, line by line, until it ends."""
    reader = asyncio.StreamReader(limit=OUTPUT_BYTES)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        async for line in _lines(reader):
            log.info("trainer: %s", line)
    finally:
        transport.close()


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    left = b""
    while block := await reader.read(OUTPUT_BYTES):
        *lines, left = (left + block).replace(b"\r", b"\n").split(b"\n")
        if len(left) > OUTPUT_BYTES:
            lines, left = [*lines, left], b""
        for line in lines:
            if text := line.decode(errors="replace").strip():
                yield printable(text)
    if left:
        yield printable(left.decode(errors="replace"))
