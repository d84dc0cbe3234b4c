"""Processes that are killed, hang or are stopped, and what fails under them: power, disk, clock."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.daemon.network_lab import run
from tests.daemon.processes import until
from tests.e2e.reliability.dying import POINTS
from tests.e2e.reliability.play import Outcome
from tests.e2e.reliability.rooms import NAMES, PATIENCE, Mesh

ON_A_DISK, ON_A_SMALL_DISK, WITH_A_CLOCK = "e", "d", "c"
DISK_BYTES, SMALL_DISK_KIB = 96 * 1024 * 1024, 64 * 1024
LEFT_BYTES = 64 * 1024  # of a full disk: enough for the history that the test reads, too little for a snapshot
STOPPED_SECONDS = 120.0
VICTIMS = "bcde"


# --- before the start ------------------------------------------------------------------------------------------------


def furnish(mesh: Mesh) -> None:
    """Give one node a disk of its own, one a small one, and one a clock that can be set."""
    for name in (ON_A_DISK, ON_A_SMALL_DISK):
        mesh.rooms[name].state.mkdir()
    image = disk_of(mesh)
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    run("mkfs.ext4", "-q", str(image))
    # what is not flushed stays in memory for longer than the mesh lives
    run("mount", "-o", "loop,commit=900", str(image), str(mesh.rooms[ON_A_DISK].state))
    run("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_KIB}k", "none", str(mesh.rooms[ON_A_SMALL_DISK].state))
    set_clock(mesh, "+0")
    mesh.rooms[WITH_A_CLOCK].environ |= {
        "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))),
        "FAKETIME_TIMESTAMP_FILE": str(clock_of(mesh)),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def disk_of(mesh: Mesh) -> Path:
    return mesh.rooms[ON_A_DISK].folder / "disk"


def clock_of(mesh: Mesh) -> Path:
    return mesh.rooms[WITH_A_CLOCK].folder / "clock"


def set_clock(mesh: Mesh, says: str) -> None:
    clock_of(mesh).write_text(f"{says}\n")


def unfurnish(mesh: Mesh) -> None:
    for name in (ON_A_DISK, ON_A_SMALL_DISK):
        while os.path.ismount(mesh.rooms[name].state):
            run("umount", "--lazy", str(mesh.rooms[name].state))


# --- processes -------------------------------------------------------------------------------------------------------


def kills(mesh: Mesh) -> Iterator[Outcome]:
    """Kill four nodes at a time, each in another phase of its round, until all phases have been."""
    phases = list(POINTS)
    for first in range(0, len(phases), len(VICTIMS)):
        victims = dict(zip(VICTIMS, phases[first : first + len(VICTIMS)], strict=True))
        for name, phase in victims.items():
            mesh.rooms[name].die_at.write_text(phase)
        lost = {}
        for name in victims:
            assert mesh.rooms[name].wait() == -signal.SIGKILL
            mixed, saved = mesh.rooms[name].on_disk()
            lost[name] = mixed - saved
        since, loading = mesh.start(victims)
        for name, phase in victims.items():
            seconds = mesh.mixed_again(since, name)
            yield Outcome(f"daemon killed, {phase}", "it went on from its last save", seconds, lost[name], loading)


def trainer_killed(mesh: Mesh) -> Iterator[Outcome]:
    room = mesh.rooms["d"]
    before = room.status()
    since = time.time()
    os.kill(before.trainer.pid, signal.SIGKILL)
    room.until(lambda status: status.trainer.pid not in (0, before.trainer.pid))
    mesh.ready("d")
    loading = time.time() - since
    seconds = mesh.mixed_again(since, "d")
    after = room.status()
    assert after.instance == before.instance
    lost = max(0, before.saved_round - after.saved_round)
    yield Outcome("trainer killed", "the daemon stayed in the mesh and started another trainer", seconds, lost, loading)


def stopped(mesh: Mesh) -> Iterator[Outcome]:
    """A node hangs, daemon and trainer, for two minutes."""
    room = mesh.rooms["c"]
    trainer = room.status().trainer.pid
    assert room.process is not None
    before, began = mesh.rooms["a"].status(), time.monotonic()
    for pid in (room.process.pid, trainer):
        os.kill(pid, signal.SIGSTOP)
    mesh.rooms["a"].until(lambda status: time.monotonic() - began > STOPPED_SECONDS, 2 * STOPPED_SECONDS)
    rounds = mesh.rooms["a"].status().round - before.round
    since = time.time()
    for pid in (trainer, room.process.pid):
        os.kill(pid, signal.SIGCONT)
    happened = f"held still for {STOPPED_SECONDS:.0f} s; the others made {rounds} rounds meanwhile"
    assert rounds >= 3, "they wait for it"
    yield Outcome("node hangs", happened, mesh.mixed_again(since))


def left(mesh: Mesh) -> Iterator[Outcome]:
    """A node is stopped as by systemd, and started again."""
    room = mesh.rooms["d"]
    before = room.status()
    room.signal(signal.SIGTERM)
    began = time.monotonic()
    for name in "abce":
        until(lambda: state_at(mesh, name, "d") == "gone")  # noqa: B023 - called here
    seen = time.monotonic() - began
    assert room.wait() == 0
    mixed, saved = room.on_disk()
    assert saved >= before.saved_round
    since, loading = mesh.start("d")
    happened = f"all others knew after {seen:.1f} s that it had gone"
    yield Outcome("clean stop and start", happened, mesh.mixed_again(since, "d"), mixed - saved, loading)


def rolling_restart(mesh: Mesh) -> Iterator[Outcome]:
    """Every node in turn is stopped and started, the others going on."""
    lost, longest = 0, (0.0, 0.0)
    for name in NAMES:
        assert mesh.rooms[name].stop() == 0
        mixed, saved = mesh.rooms[name].on_disk()
        lost = max(lost, mixed - saved)
        since, loading = mesh.start(name)
        longest = max(longest, (mesh.mixed_again(since, name), loading))
    yield Outcome("all restarted in turn", "the longest of the five", longest[0], lost, longest[1])


def state_at(mesh: Mesh, name: str, other: str) -> str:
    with mesh.rooms[name].client() as client:
        return next((peer.state for peer in client.peers() if peer.node == mesh.ids[other]), "unknown")


# --- what is under them ----------------------------------------------------------------------------------------------


def power_cut(mesh: Mesh) -> Iterator[Outcome]:
    """All processes of a host end, and what they wrote and did not flush is gone with its memory."""
    room = mesh.rooms[ON_A_DISK]
    room.die_at.write_text("after saving")
    assert room.wait() == -signal.SIGKILL
    (room.state / "not-flushed").write_text("so it will be lost")
    mixed, _ = room.on_disk()
    restored = disk_of(mesh).with_suffix(".after")
    shutil.copyfile(disk_of(mesh), restored)  # what has reached the disk; the rest is in the file system's memory
    run("mount", "-o", "loop", str(restored), str(room.state))
    assert not (room.state / "not-flushed").exists(), "everything was flushed: this was no power cut"
    _, saved = room.on_disk()
    since, loading = mesh.start(ON_A_DISK)
    happened = "the file system was as at the last flush; it went on from its last save"
    yield Outcome("power cut", happened, mesh.mixed_again(since, ON_A_DISK), mixed - saved, loading)


def disk_full(mesh: Mesh) -> Iterator[Outcome]:
    room = mesh.rooms[ON_A_SMALL_DISK]
    ballast = room.state / "ballast"
    room.until(lambda status: "not saved" in status.problem or fill(ballast), PATIENCE)
    os.truncate(ballast, ballast.stat().st_size - LEFT_BYTES)
    began, saved = time.time(), room.status().saved_round
    mesh.rounds_go_by(3, ON_A_SMALL_DISK)
    mixing = mesh.mixed_again(began, ON_A_SMALL_DISK)
    assert room.status().saved_round == saved
    since = time.time()
    ballast.unlink()
    room.until(lambda status: status.saved_round > saved and "not saved" not in status.problem)
    again = time.time() - since
    happened = (
        f"it went on mixing, unsaved (all within {mixing:.1f} s), said so, and saved {again:.1f} s after there was room"
    )
    yield Outcome("disk full", happened, mesh.mixed_again(since, ON_A_SMALL_DISK))


def fill(ballast: Path) -> bool:
    """Take all room that is left, also what a save has given free since the last time; False, for all is taken."""
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return False


def clock_ahead(mesh: Mesh) -> Iterator[Outcome]:
    """The clock of a node jumps 40 days ahead, beyond all certificates here; it is restarted so, and then set right."""
    room = mesh.rooms[WITH_A_CLOCK]
    set_clock(mesh, "+40d")
    room.until(lambda status: "certificate expires" in status.problem, PATIENCE)
    mesh.rounds_go_by(3, WITH_A_CLOCK)
    room.signal(signal.SIGTERM)
    assert room.wait() == 0
    room.start()
    assert room.wait() == 77
    assert "[certificate.expired]" in room.log()
    set_clock(mesh, "+0")
    since, loading = mesh.start(WITH_A_CLOCK)
    happened = (
        "it said that its certificate ends, and would not start again (`certificate.expired`) until the clock was right"
    )
    yield Outcome("clock 40 days ahead", happened, mesh.mixed_again(since, WITH_A_CLOCK), 0, loading)
