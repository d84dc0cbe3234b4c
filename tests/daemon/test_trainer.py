"""The trainer as a child process, with small programs in its place."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from decaf_node import link
from decaf_node.daemon.link_server import LinkServer
from decaf_node.daemon.trainer import Retry, Trainer
from decaf_node.errors import BadSettings, TryAgain
from tests.daemon.processes import ROOT, alive, until

WELCOME = link.Welcome("NODE", "name", {}, "/spool")
HELLO = link.encode(link.TrainerConnected(7))
PATIENCE = 10.0
CONNECT = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[2]); "


class Conversation:
    """A link server and what it heard."""

    def __init__(self, path: Path, limit: int = 4096) -> None:
        self.heard: asyncio.Queue[link.Message] = asyncio.Queue()
        self.lost: asyncio.Queue[str] = asyncio.Queue()
        self.path = path
        self.child: Trainer | None = None
        self.server = LinkServer(path, limit, WELCOME, self.hear, self.lost.put)

    def trainer(self, code: str, restarts: int = 5) -> Trainer:
        scratch, retry = self.path.parent / "scratch", Retry(restarts, 0.01, PATIENCE)
        self.child = Trainer(self.server, self.path, scratch, ("-c", code), retry, lambda: False)
        return self.child

    async def hear(self, message: link.Message) -> None:
        """Last words count before anything else happens, as in the daemon."""
        if self.child is not None and isinstance(message, link.TrainerFailed):
            self.child.failed(message)
        await self.heard.put(message)


@asynccontextmanager
async def listening(limit: int = 4096) -> AsyncIterator[Conversation]:
    with tempfile.TemporaryDirectory(prefix="decaf-", dir="/tmp") as folder:
        conversation = Conversation(Path(folder) / "trainer.sock", limit)
        await conversation.server.start()
        try:
            yield conversation
        finally:
            await conversation.server.close()
        assert not conversation.path.exists()


async def soon(queue: asyncio.Queue[str] | asyncio.Queue[link.Message]) -> object:
    return await asyncio.wait_for(queue.get(), PATIENCE)


# --- the link ------------------------------------------------------------------------------------------------------


async def test_a_trainer_is_welcomed_and_heard() -> None:
    async with listening() as there:
        reader, writer = await asyncio.open_unix_connection(there.path)
        writer.write(HELLO)
        assert link.decode(await reader.readline()) == WELCOME
        assert await soon(there.heard) == link.TrainerConnected(7)
        assert there.server.send(link.Pause())
        assert link.decode(await reader.readline()) == link.Pause()
        writer.close()
        assert await soon(there.lost) == "the trainer is gone"
        assert not there.server.send(link.Pause())


@pytest.mark.parametrize(
    ("said", "cause"),
    [(b"no json\n", "something else than a message"), (b"x" * 5000 + b"\n", "more than 4096 bytes")],
)
async def test_what_is_no_message_ends_the_link(said: bytes, cause: str) -> None:
    async with listening() as there:
        reader, writer = await asyncio.open_unix_connection(there.path)
        writer.write(HELLO + said)
        assert cause in str(await soon(there.lost))
        await reader.readline()
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    "first", [b"no json\n", link.encode(link.TrainerConnected(7, version=9)), link.encode(link.Stop())]
)
async def test_who_does_not_say_who_it_is_is_turned_away(first: bytes) -> None:
    async with listening() as there:
        reader, writer = await asyncio.open_unix_connection(there.path)
        writer.write(first)
        assert await reader.read() == b""
        assert there.heard.empty()
        assert there.lost.empty()
        writer.close()


async def test_one_node_has_one_trainer() -> None:
    async with listening() as there:
        reader, writer = await asyncio.open_unix_connection(there.path)
        writer.write(HELLO)
        await reader.readline()
        second, its_writer = await asyncio.open_unix_connection(there.path)
        assert await second.read() == b""
        its_writer.close()
        assert there.server.send(link.Pause())
        assert link.decode(await reader.readline()) == link.Pause()
        writer.close()
        await soon(there.lost)


# --- the process ---------------------------------------------------------------------------------------------------


async def test_a_trainer_that_ends_is_started_again_until_that_is_hopeless(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as there:
        with pytest.raises(TryAgain) as caught:
            await there.trainer("print('hello from it'); raise SystemExit(3)", restarts=3).run()
        assert caught.value.reason == "trainer.keeps-ending"
        assert "3 times in a row" in caught.value.message
        assert "exit code 3" in caught.value.message
        assert caplog.text.count("starting it again") == 2


async def test_every_trainer_finds_its_scratch_folder_empty_and_private(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    code = (
        "import os, sys; t = os.environ['TMPDIR']; print(os.listdir(t), oct(os.stat(t).st_mode)); open(t + '/x', 'w')"
    )
    async with listening() as there:
        scratch = there.path.parent / "scratch"
        scratch.mkdir()
        (scratch / "left").write_text("by a killed one")
        with pytest.raises(TryAgain):
            await there.trainer(code, restarts=2).run()
    assert caplog.text.count("[] 0o40700") == 2


async def test_rounds_that_finish_forgive_what_was_before() -> None:
    async with listening() as there:
        trainer = there.trainer("raise SystemExit(1)", restarts=2)
        running = asyncio.create_task(trainer.run())
        while trainer.restarts < 3:
            trainer.round_done()
            await asyncio.sleep(0)
        with pytest.raises(TryAgain):
            await running


@pytest.mark.parametrize(("fatal", "runs"), [(True, 1), (False, 3)])
async def test_last_words_give_the_exit_code(fatal: bool, runs: int) -> None:
    last = link.encode(link.TrainerConnected(1)) + link.encode(
        link.TrainerFailed("model.missing", "There is no model.", 78, fatal)
    )
    async with listening() as there:
        trainer = there.trainer(CONNECT + f"s.sendall({last!r}); raise SystemExit(78)", restarts=3)
        with pytest.raises(BadSettings, match="There is no model"):
            await trainer.run()
        assert trainer.restarts == runs - 1
        assert there.heard.qsize() == 2 * runs


@pytest.mark.slow
async def test_a_trainer_that_is_unheard_is_killed() -> None:
    async with listening() as there:
        trainer = there.trainer(CONNECT + f"s.sendall({HELLO!r}); time.sleep(60)", restarts=1)
        running = asyncio.create_task(trainer.run())
        await soon(there.heard)
        pid = trainer.pid
        trainer.unheard()
        with pytest.raises(TryAgain, match="SIGKILL"):
            await running
        assert not alive(pid)


async def test_stopping_waits_for_the_trainer_to_end() -> None:
    code = (
        CONNECT + f"s.sendall({HELLO!r}); f = s.makefile(); f.readline(); raise SystemExit('Stop' not in f.readline())"
    )
    async with listening() as there:
        trainer = there.trainer(code)
        running = asyncio.create_task(trainer.run())
        await soon(there.heard)
        trainer.stop()
        await asyncio.wait_for(running, PATIENCE)
        assert trainer.pid == 0


async def test_cancelling_kills_the_trainer_and_its_children() -> None:
    code = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '60']); print('child', child.pid, flush=True); "
        "child.wait()"
    )
    lines: asyncio.Queue[str] = asyncio.Queue()
    handler = logging.Handler()
    handler.emit = lambda record: lines.put_nowait(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("decaf_node.daemon.trainer")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        async with listening() as there:
            trainer = there.trainer(code)
            running = asyncio.create_task(trainer.run())
            child = int(str(await soon(lines)).rpartition(" ")[2])
            pid = trainer.pid
            running.cancel()
            await asyncio.wait({running})
            assert not alive(pid)
            until(lambda: not alive(child), patience=2.0)
    finally:
        logger.removeHandler(handler)


async def test_output_is_logged_in_lines_of_bounded_length(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with listening() as there:
        with pytest.raises(TryAgain):
            await there.trainer(r"print('one\x1b[2J\ntwo'); print('x' * 9000); print('last', end='')", 1).run()
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("trainer: ")]
    assert said[0] == "trainer: one [2J"
    assert said[1] == "trainer: two"
    assert said[-1] == "trainer: last"
    assert sum(line.count("x") for line in said[2:]) == 9000
    assert max(map(len, said)) < 4100


def test_the_trainer_dies_with_the_daemon() -> None:
    parent = (
        "import os, subprocess, sys, time\n"
        "sleeper = ['-c', 'import time; time.sleep(60)']\n"
        "leash = [sys.executable, '-m', 'decaf_node.daemon.leash', str(os.getpid()), *sleeper]\n"
        "print(subprocess.Popen(leash, start_new_session=True).pid, flush=True)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    until(lambda: "leash" not in Path(f"/proc/{child}/cmdline").read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    until(lambda: not alive(child), patience=2.0)
