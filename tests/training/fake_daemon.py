"""A daemon for one trainer: a real Unix socket, a real process, and answers that a test writes down."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from decaf_node.link import (
    Evaluated,
    Message,
    MixRound,
    Pause,
    PrivacySpent,
    Progress,
    RoundMixed,
    RoundTrained,
    SaveState,
    StartTraining,
    StateSaved,
    ToTrainer,
    TrainerConnected,
    TrainerReady,
    Welcome,
    decode,
    encode,
)
from decaf_node.settings import Settings

Kind = TypeVar("Kind")
WORKER = ("-m", "decaf_node.training.worker")
PATIENCE_SECONDS = 120.0


class FakeDaemon:
    """The daemon's end of one link."""

    def __init__(self, stream: socket.socket, spool: Path) -> None:
        stream.settimeout(PATIENCE_SECONDS)
        self.stream = stream
        self.spool = spool
        self.label_parts: tuple[float, ...] = ()  # in the mesh, said with the next mixes
        self._lines = stream.makefile("rb")

    def send(self, message: ToTrainer) -> None:
        self.stream.sendall(encode(message))

    def receive(self) -> Message:
        line = self._lines.readline()
        if not line:
            raise EOFError("the trainer has hung up")
        return decode(line)

    def expect(self, kind: type[Kind]) -> Kind:
        """Return the next message, which must be a ``kind``; progress and budgets in between are passed over."""
        message = self.receive()
        while isinstance(message, (Progress, PrivacySpent)) and kind not in (Progress, PrivacySpent):
            message = self.receive()
        assert isinstance(message, kind), message
        return message

    def welcome(self, settings: Settings) -> None:
        self.expect(TrainerConnected)
        account = str(self.spool.parent / "privacy.json")
        self.send(Welcome("NODE", "node", settings.model_dump(mode="json"), str(self.spool), account))

    def start(self, settings: Settings, start: StartTraining | None = None) -> TrainerReady:
        """Greet the trainer and let it train."""
        self.welcome(settings)
        ready = self.expect(TrainerReady)
        self.send(start or StartTraining(1))
        return ready

    def mix(self, mix: MixRound) -> RoundMixed:
        self.send(mix)
        return self.expect(RoundMixed)

    def whole_round(self, evaluated: bool = True) -> tuple[RoundTrained, Evaluated | None]:
        """Take a round as it comes and mix it without a neighbour."""
        trained = self.expect(RoundTrained)
        self.mix(MixRound(trained.round, (), self.label_parts))
        return trained, self.expect(Evaluated) if evaluated else None

    def save_between_rounds(self, round: int, folder: Path) -> tuple[StateSaved, Evaluated]:
        """Hold the trainer right after the mix of ``round``, and have it save."""
        trained = self.expect(RoundTrained)
        assert trained.round == round
        self.send(Pause())
        self.mix(MixRound(round, (), self.label_parts))
        evaluated = self.expect(Evaluated)
        self.send(SaveState(round, str(folder)))
        return self.expect(StateSaved), evaluated

    def hang_up(self) -> None:
        self._lines.close()
        self.stream.close()


@contextlib.contextmanager
def listening() -> Iterator[tuple[socket.socket, Path, Path]]:
    """A socket to connect to, its path, and a spool; the path is short, as Unix sockets want it."""
    with tempfile.TemporaryDirectory(prefix="dn-") as folder, socket.socket(socket.AF_UNIX) as server:
        path, spool = Path(folder, "trainer.sock"), Path(folder, "spool")
        spool.mkdir()
        server.bind(str(path))
        server.listen(1)
        server.settimeout(PATIENCE_SECONDS)
        yield server, path, spool


class Worker:
    """The built-in trainer as a process, and the daemon that it talks to."""

    def __init__(self, process: subprocess.Popen[str], daemon: FakeDaemon) -> None:
        self.process = process
        self.daemon = daemon

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def said(self) -> str:
        """What it printed to its standard error, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextlib.contextmanager
def running_worker(command: Sequence[str] = WORKER) -> Iterator[Worker]:
    """Start the built-in trainer; it is gone afterwards, whatever the test did."""
    with listening() as (server, path, spool):
        process = subprocess.Popen(
            [sys.executable, *command, "--socket", str(path)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
        daemon = FakeDaemon(server.accept()[0], spool)
        try:
            yield Worker(process, daemon)
        finally:
            daemon.hang_up()
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()
