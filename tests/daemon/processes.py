"""Real daemons with the scripted trainer, each a process, on loopback only and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from decaf_node.daemon.client import Client
from decaf_node.daemon.papers import is_member
from decaf_node.daemon.reports import RoundReport, StatusReport
from decaf_node.errors import DaemonUnreachable, TryAgain
from tests.daemon.trusted import Authority

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("run_scripted.py")
TRAINER = Path(__file__).with_name("scripted_trainer.py")
PATIENCE = 30.0

Settings = Mapping[str, Mapping[str, Any]]


class Daemon:
    """One daemon: its folders stay over restarts."""

    def __init__(self, folder: Path, name: str, settings: Settings, authority: Authority | None) -> None:
        """authority: makes the node a member; None: nobody does."""
        self.name = name
        self.folder = folder / name
        self.state = self.folder / "state"
        self.runtime = self.folder / "run"
        self.config = self.folder / "config.toml"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.configure(settings)
        self._authority = authority
        self.process: subprocess.Popen[bytes] | None = None
        self.within: tuple[str, ...] = ()  # a command that runs another, as in a network namespace
        self.python = sys.executable
        self.environ: dict[str, str] = {}
        self._log = self.folder / "log"

    def configure(self, settings: Settings) -> None:
        sections: dict[str, dict[str, Any]] = {
            "node": {"name": self.name},
            "mesh": {"name": "lab"},
            "listen": {"port": 0, "enrolment_port": 0},
            "discovery": {"mdns": False},
            "model": {"path": "/none"},
            "data": {"train": ["/none"]},
            "round": {"steps": 3, "overlap": False, "wait_floor": 2.0, "wait_ceiling": 4.0},
            "store": {"save_every": 0},
            "limits": {"redial_backoff": 1.0},
            "training.arguments": {},
        }
        for section, values in settings.items():
            sections.setdefault(section, {}).update(values)
        lines = [
            f"[{name}]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in keys.items()) for name, keys in sections.items()
        ]
        self.config.write_text("\n".join(lines))

    def start(self, *options: str) -> Daemon:
        if self._authority is not None and not is_member(self.state / "identity"):
            self._authority.admit(self.state)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.within, *self.words(), *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self.environ},
            )
        return self

    def words(self) -> list[str]:
        """Return what is run."""
        return [self.python, str(PROGRAM), str(self.config), str(self.state), str(self.runtime)]

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def tail(self) -> str:
        return "\n".join(self.log().splitlines()[-25:])

    def says(self, words: str, patience: float = PATIENCE) -> None:
        """Wait until its log has the words."""
        end = time.monotonic() + patience
        while words not in self.log():
            ended = self.process is not None and self.process.poll() is not None and words not in self.log()
            over = ended or time.monotonic() > end
            assert not over, f"{self.tail()}\n{self.name} never said {words!r}"
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for the end of the process; return its exit code."""
        assert self.process is not None
        return self.process.wait(timeout)

    def end(self) -> None:
        """Kill what runs; the trainer dies with it."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def client(self) -> Client:
        return Client(self.runtime / "control.sock")

    def status(self) -> StatusReport:
        with self.client() as client:
            return client.status()

    def rounds(self) -> list[RoundReport]:
        with self.client() as client:
            return client.rounds()

    def mixed(self) -> RoundReport:
        """Wait for the first round that the history shows with an edge; the status counts it a little earlier."""
        self.until(lambda _: any(row.edges for row in self.rounds()))
        return min((row for row in self.rounds() if row.edges), key=lambda row: row.round)

    def address(self) -> str:
        return self.until(lambda status: status.address != "").address

    def until(self, holds: Callable[[StatusReport], bool], patience: float = PATIENCE) -> StatusReport:
        """Wait until the status is as wanted; return it."""
        last: StatusReport | None = None
        end = time.monotonic() + patience
        while time.monotonic() < end:
            with contextlib.suppress(DaemonUnreachable, TryAgain):
                last = self.status()
                if holds(last):
                    return last
            assert self.process is None or self.process.poll() is None, f"{self.name} has ended:\n{self.tail()}"
            time.sleep(0.05)
        raise AssertionError(f"{self.tail()}\n{self.name} never came so far: {last}")


@contextmanager
def mesh() -> Iterator[Callable[..., Daemon]]:
    """Give a maker of daemons of one mesh: ``make(name, *peers, section={...})``; all end with the test.

    They speak TLS, unless ``security={"insecure": True}``; with ``authority=None`` one is no member.
    """
    daemons: list[Daemon] = []
    ours = Authority()
    with tempfile.TemporaryDirectory(prefix="decaf-", dir="/tmp") as folder:

        def make(name: str, *peers: Daemon, **settings: Any) -> Daemon:
            script = settings.pop("script", {})
            authority = settings.pop("authority", ours)
            sections: dict[str, dict[str, Any]] = {**settings, "training.arguments": script}
            sections["mesh"] = {"peers": [peer.address() for peer in peers], **settings.get("mesh", {})}
            daemons.append(Daemon(Path(folder), name, sections, authority))
            return daemons[-1]

        try:
            yield make
        finally:
            for daemon in daemons:
                daemon.end()
        for daemon in daemons:
            assert "fsync on the loop" not in daemon.log(), daemon.log()


def until(holds: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait for something that is not in a status."""
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Tell whether a process runs (one that waits to be reaped does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _section(name: str, values: Mapping[str, Any]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())])


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case list() | tuple():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case _:
            return str(value)
