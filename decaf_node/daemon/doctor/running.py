"""The daemon of this machine: does it run, and what does it say is wrong?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from decaf_node.daemon.addresses import split
from decaf_node.daemon.client import Client
from decaf_node.daemon.doctor.finding import Finding, failure, warning, well
from decaf_node.daemon.listening import try_port
from decaf_node.daemon.local_http import try_local
from decaf_node.daemon.reports import ProblemReport, RoundReport, StateReport, StatusReport
from decaf_node.daemon.status import installed_version
from decaf_node.daemon.store import LOCK
from decaf_node.errors import Bug, DaemonUnreachable, DecafError, NotAllowed, TryAgain
from decaf_node.places import Places
from decaf_node.settings import Settings

LAYER, SUBJECT = "daemon", "decaf-node run"
ROUNDS_TOLD = 100
OFTEN, SOON_SECONDS = 3, 300.0  # a trainer that is started again so often, in so little time each, gets nowhere

# What the daemon calls the places of trouble -> layer, reason, and the kind of error; None: the node goes on.
TROUBLE: dict[str, tuple[str, str, type[DecafError] | None]] = {
    "identity": ("identity", "identity.cloned", NotAllowed),
    "membership": ("identity", "security.revoked", NotAllowed),
    "certificate": ("identity", "certificate.not-renewed", None),
    "crl": ("identity", "crl.stale", None),
    "disk": ("disk", "disk.failed", TryAgain),
    "spool": ("disk", "spool.full", TryAgain),
    "save": ("disk", "mesh.save-failed", TryAgain),
    "trainer": ("daemon", "trainer.failing", TryAgain),
    "enrolment": ("daemon", "enrolment.failing", None),
}
CLONE = "clone "  # and a node ID


@dataclass(frozen=True)
class Said:
    """What the daemon has answered. state: None where none answers, then why says why not."""

    state: StateReport | None = None
    rounds: tuple[RoundReport, ...] = ()
    why: DecafError | None = None


def ask_daemon(socket: Path) -> Said:
    """Ask the daemon for all that it shows. It blocks, for some seconds at most."""
    try:
        with Client(socket) as client, closing(client.watch()) as watched:
            first = next(watched).what
            if not isinstance(first, StateReport):
                raise Bug("bug.no-state", "The daemon does not begin with its state; please report it.")
            return Said(first, tuple(client.rounds(limit=ROUNDS_TOLD)))
    except DecafError as error:
        return Said(why=error)


def look_at_daemon(said: Said, places: Places, settings: Settings) -> list[Finding]:
    """Judge what the daemon has said, or why it does not answer."""
    if said.state is not None:
        return [*_look_at_state(said.state.status), *_troubles(said.state)]
    assert said.why is not None
    holder = lock_holder(places.state / LOCK)
    if holder:
        elsewhere = (
            f"Process {holder} holds the state folder {places.state}, and no daemon answers in {places.runtime}."
        )
        return [failure(LAYER, SUBJECT, DaemonUnreachable("daemon.elsewhere", elsewhere))]
    return list(_ports(settings)) or [failure(LAYER, SUBJECT, said.why)]


def _ports(settings: Settings) -> Iterator[Finding]:
    """Yield what keeps a daemon from listening where the settings say."""
    try:
        try_port(settings.listen.address, settings.listen.port)
    except DecafError as error:
        yield failure(LAYER, f"port {settings.listen.port}", error)
    monitor = settings.monitor
    places = {"monitor.listen": split(monitor.listen), "monitor.metrics": split(monitor.metrics)}
    places["monitor.dashboard_port"] = ("127.0.0.1", monitor.dashboard_port) if monitor.dashboard else None
    for setting, place in places.items():
        if place is None:
            continue  # it is off, or takes a free one; one that is none is said of the settings
        try:
            try_local(*place, setting)
        except DecafError as error:
            yield failure(LAYER, setting, error)


def _look_at_state(status: StatusReport) -> Iterator[Finding]:
    if status.version != installed_version():
        other = f"The daemon is version {status.version}, and this is {installed_version()}."
        yield warning(LAYER, SUBJECT, "daemon.other-version", other)
    if status.phase == "paused":
        yield warning(LAYER, SUBJECT, "daemon.paused", "It is paused: it neither trains nor mixes.")
    elif status.trainer.state == "ready":
        yield well(LAYER, SUBJECT, f"{status.phase}, round {status.round}, mixed in {status.mixes} rounds")
    elif not status.trainer.restarts:
        yield well(LAYER, SUBJECT, f"it runs, and its trainer is {status.trainer.state}")


def _troubles(state: StateReport) -> Iterator[Finding]:
    """Yield what the daemon says is wrong with itself; what it says of peers the doctor sees for itself."""
    for problem in state.problems:
        words, remedy = _in_words(problem)
        if problem.place.startswith(CLONE):
            yield warning("peers", "identities", "identity.cloned-peer", words, remedy)
        elif problem.place in TROUBLE and not _is_room(problem):
            layer, reason, kind = TROUBLE[problem.place]
            if kind is None:
                yield warning(layer, "as the daemon says", reason, words, remedy)
            else:
                yield failure(layer, "as the daemon says", kind(reason, words), remedy)
    restarts, up = state.status.trainer.restarts, state.status.uptime_seconds
    if (
        restarts >= OFTEN
        and up / restarts < SOON_SECONDS
        and not any(each.place == "trainer" for each in state.problems)
    ):
        words = f"The trainer was started again {restarts} times within {up:.0f} s: it ends again and again."
        yield failure(LAYER, "trainer", TryAgain("trainer.failing", words))


def _in_words(problem: ProblemReport) -> tuple[str, str]:
    """Return what is wrong, and what to do about it where that is told apart."""
    return (problem.alert.sentence, problem.alert.remedy) if problem.alert is not None else (problem.sentence, "")


def _is_room(problem: ProblemReport) -> bool:
    """Tell whether it is about the room on the disk, which the doctor looks at itself."""
    return problem.alert is not None and problem.alert.id == "disk.nearly-full"


def lock_holder(lock: Path) -> int:
    """Return the process that holds the state folder; 0 if none does, or it cannot be seen. Nothing is locked."""
    try:
        found = lock.stat()
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    fields = (line.split() for line in lines)
    return next((int(held[4]) for held in fields if len(held) > 5 and held[1] == "FLOCK" and held[5] == place), 0)
