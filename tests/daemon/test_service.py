"""What systemd is told: on a real socket, by the functions and by a real daemon."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from decaf_node.daemon import service
from decaf_node.daemon.reports import AlertReport
from decaf_node.errors import BadSettings
from tests.cli.command import decaf_node
from tests.cli.reports import status_report
from tests.daemon.processes import Daemon, mesh

PATIENCE = 30.0


class Manager:
    """The end of the socket that systemd listens at; all that it has heard, message by message."""

    def __init__(self, listening: socket.socket, place: str) -> None:
        self._socket = listening
        self.place = place
        self.heard: list[str] = []

    def next(self, seconds: float = PATIENCE) -> str:
        self._socket.settimeout(seconds)
        self.heard.append(self._socket.recv(4096).decode())
        return self.heard[-1]

    def until(self, holds: Callable[[str], bool], silence: float = PATIENCE) -> str:
        """Return the message that is as wanted. Raises TimeoutError if nothing at all comes for so long."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if holds(message := self.next(silence)):
                return message
        raise AssertionError(self.heard)


@contextmanager
def listening(place: str) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"\0{place[1:]}" if place.startswith("@") else place)
        yield Manager(channel, place)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        place = f"{folder}/notify" if request.param == "path" else f"@decaf-node-test-{os.getpid()}"
        with listening(place) as manager:
            monkeypatch.setenv(service.SOCKET, place)
            yield manager


def test_all_of_it_is_one_message(manager: Manager) -> None:
    assert service.notify("READY=1", service.status("here"))
    assert manager.next() == "READY=1\nSTATUS=here"


def test_without_a_socket_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(service.SOCKET, raising=False)
    assert not service.notify("READY=1")
    assert not service.is_told()


@pytest.mark.parametrize("place", ["/nowhere/at/all", "@nobody-listens-here", "neither", "", "/" + "x" * 200])
def test_a_manager_that_is_not_there_is_no_error(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(service.SOCKET, place)
    assert not service.notify("READY=1")


def test_what_is_said_cannot_be_taken_for_another_assignment(manager: Manager) -> None:
    service.notify(service.status("a peer's name\nMAINPID=1\x1b[2J" + "x" * 1000))
    told = manager.next()
    assert "\n" not in told
    assert told.startswith("STATUS=a peer's name MAINPID=1 [2J")
    assert len(told) == len("STATUS=") + service.STATUS_LIMIT


def test_a_reload_begins_with_its_time_and_ends_ready_whatever_comes(manager: Manager) -> None:
    before = time.monotonic_ns() // 1000
    with pytest.raises(BadSettings), service.reloading():
        raise BadSettings("settings.missing", "There are none.")
    began, at = manager.next().split("\n")
    assert began == "RELOADING=1"
    assert before <= int(at.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert manager.next() == "READY=1"


def test_a_stop_asks_for_longer_than_limits_stop(manager: Manager) -> None:
    service.stopping(120.0)
    stopping, _, extend = manager.next().split("\n")
    assert stopping == "STOPPING=1"
    assert extend == "EXTEND_TIMEOUT_USEC=130000000"


def test_the_error_that_ends_the_daemon_is_told(manager: Manager) -> None:
    with pytest.raises(BadSettings), service.last_words():
        raise BadSettings("settings.missing", "There are none.")
    assert manager.next() == "STATUS=There are none. [settings.missing]"


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
    ],
)
def test_the_watchdog_is_fed_where_it_is_ours(
    environ: dict[str, str], seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert service.watchdog_seconds() == seconds


async def test_the_loop_feeds_the_watchdog_and_tells_only_changes(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    words = ["one"]
    telling = asyncio.create_task(service.keep_told(lambda: words[-1]))
    first = [await asyncio.to_thread(manager.next) for _ in range(4)]
    assert sorted(first) == ["STATUS=one", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]
    words.append("two")
    assert await asyncio.to_thread(manager.until, lambda told: told.startswith("STATUS=")) == "STATUS=two"
    telling.cancel()


@pytest.mark.parametrize(
    ("phase", "degree", "problems", "line"),
    [
        ("training", 1, (), "training: round 3, 1 neighbour, loss 0.5"),
        ("mixing", 4, ("It is full.",), "mixing: round 3, 4 neighbours, loss 0.5. It is full."),
        ("training", 0, ("A.", "B."), "training: round 3, 0 neighbours, loss 0.5. A. (1 more: decaf-node status)"),
        ("stopping", 1, (), "stopping"),
    ],
)
def test_the_line_says_the_round_and_the_worst(phase: str, degree: int, problems: tuple[str, ...], line: str) -> None:
    report = status_report(3, phase, degree=degree)
    alerts = [AlertReport("id", "warning", "place", 0.0, words, "Remedy.") for words in problems]
    assert service.in_a_line(report, alerts) == line


# --- a daemon ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[Manager, Daemon]]:
    """A daemon that is not started yet, and who hears it."""
    with mesh() as make, listening(f"@decaf-node-daemon-{os.getpid()}") as manager:
        node = make("a", script={"seconds": 0.3})
        node.environ = {service.SOCKET: manager.place, "WATCHDOG_USEC": "1000000"}
        yield manager, node


@pytest.mark.slow
def test_a_daemon_is_ready_says_its_rounds_reloads_and_stops(told: tuple[Manager, Daemon]) -> None:
    manager, node = told
    node.start()
    ready = manager.until(lambda message: message.startswith("READY=1"))
    assert ready == "READY=1\nSTATUS=waiting for the trainer to start", "it is not waited for"
    node.status()  # it answers from then on
    assert "WATCHDOG=1" not in "".join(manager.heard), "systemd does not watch before it is ready"
    manager.until(lambda message: message.startswith("STATUS=training: round "))
    manager.until(lambda message: message == "WATCHDOG=1")
    node.signal(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in manager.until(lambda message: message.startswith("RELOADING=1"))
    manager.until(lambda message: message == "READY=1")
    node.signal(signal.SIGTERM)
    assert "EXTEND_TIMEOUT_USEC=19000000" in manager.until(lambda message: message.startswith("STOPPING=1"))
    assert node.wait() == 0


@pytest.mark.slow
def test_a_loop_that_does_not_turn_feeds_nothing(told: tuple[Manager, Daemon]) -> None:
    manager, node = told
    node.start()
    manager.until(lambda message: message == "WATCHDOG=1")
    node.signal(signal.SIGSTOP)
    with pytest.raises(TimeoutError):  # after what was on its way: twice as long as the watchdog waits
        manager.until(lambda message: False, 2.0)
    node.signal(signal.SIGCONT)
    manager.until(lambda message: message == "WATCHDOG=1")


def test_the_command_says_why_it_does_not_start(tmp_path: Path) -> None:
    with listening(f"@decaf-node-command-{os.getpid()}") as manager:
        done = decaf_node("run", "--config", tmp_path / "none.toml", NOTIFY_SOCKET=manager.place)
        assert done.returncode == 78
        assert "[settings.missing]" in manager.next()
