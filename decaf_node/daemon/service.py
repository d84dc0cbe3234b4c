"""What systemd is told, by ``sd_notify(3)``; without ``NOTIFY_SOCKET`` nothing is told, and nothing else differs."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from decaf_node.daemon.logs import printable
from decaf_node.daemon.reports import AlertReport, StatusReport
from decaf_node.errors import DecafError

log = logging.getLogger(__name__)

SOCKET, WATCHDOG = "NOTIFY_SOCKET", "WATCHDOG_USEC"
LOOK_SECONDS = 1.0  # the status line is told at most so often
SEND_SECONDS = 1.0  # for a service manager that is busy
SPARE_SECONDS = 10.0  # beyond limits.stop, before systemd may kill us
STATUS_LIMIT = 300


def is_told() -> bool:
    """Say whether systemd, or who else has started us, wants to hear of us."""
    return SOCKET in os.environ


def notify(*assignments: str) -> bool:
    """Tell systemd all of it in one message; return whether it was told. A manager that is gone is no error."""
    place = os.environ.get(SOCKET, "")
    if not place.startswith(("/", "@")):
        return False
    address = f"\0{place[1:]}" if place.startswith("@") else place  # @: Linux's abstract names
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(SEND_SECONDS)
        try:
            channel.sendto("\n".join(assignments).encode(), address)
        except OSError as error:
            log.debug("systemd was not told %s: %s", assignments[0], error)
            return False
    return True


def status(words: str) -> str:
    """Return the assignment of the line that ``systemctl status`` shows."""
    return f"STATUS={printable(words)[:STATUS_LIMIT]}"


def stopping(seconds: float) -> None:
    """The daemon ends, and takes so long at most: it is not to be killed before, whatever TimeoutStopSec says."""
    extend = f"EXTEND_TIMEOUT_USEC={round((seconds + SPARE_SECONDS) * 1e6)}"
    notify("STOPPING=1", status("Stopping: the round is saved first."), extend)


@contextmanager
def reloading() -> Iterator[None]:
    """Settings and certificates are read again meanwhile."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        yield
    finally:
        notify("READY=1")


@contextmanager
def last_words() -> Iterator[None]:
    """What ends the daemon stays in ``systemctl status``."""
    try:
        yield
    except DecafError as error:
        notify(status(str(error)))
        raise


def watchdog_seconds() -> float | None:
    """Return how long systemd waits to hear of us; None if it does not, or not of this process."""
    given = os.environ.get(WATCHDOG, "")
    ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(given) / 1e6 if ours and given.isdecimal() and int(given) > 0 else None


async def keep_told(words: Callable[[], str]) -> None:
    """Feed the watchdog, and tell what ``words`` says when it changes, until cancelled.

    It is the loop that feeds it: one that hangs is killed by systemd, and the daemon started again.
    """
    watchdog = watchdog_seconds()
    pause = LOOK_SECONDS if watchdog is None else min(LOOK_SECONDS, watchdog / 2)
    told, fed = "", float("-inf")
    while True:
        now = time.monotonic()
        if watchdog is not None and now - fed >= watchdog / 2 - pause:
            notify("WATCHDOG=1")
            fed = now
        if (line := status(words())) != told:
            told = line
            notify(line)
        await asyncio.sleep(pause)


def in_a_line(report: StatusReport, alerts: list[AlertReport]) -> str:
    """Return the node at a glance, with the worst of what is wrong."""
    doing = _doing(report)
    if not alerts:
        return doing
    more = f" ({len(alerts) - 1} more: decaf-node status)" if len(alerts) > 1 else ""
    return f"{doing}. {alerts[0].sentence}{more}"


def _doing(report: StatusReport) -> str:
    trainer = report.trainer
    if report.phase in ("stopping", "stopped"):
        return report.phase
    match trainer.state:
        case "ready":
            loss = "" if trainer.loss is None else f", loss {trainer.loss:.3g}"
            return f"{report.phase}: round {report.round}, {_neighbours(report.degree)}{loss}"
        case "starting":
            return "loading the model"
        case "external":
            return "waiting for a trainer to connect"
        case _:
            return "waiting for the trainer to start"


def _neighbours(count: int) -> str:
    return f"{count} neighbour{'' if count == 1 else 's'}"
