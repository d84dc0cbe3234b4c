"""A machine with a systemd of its own: this one's files under an overlay that is thrown away, booted by systemd-nspawn.

As root, in namespaces of its own, see ``network_lab.ALONE``: nothing leaves it and nothing is left behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import site
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.daemon.processes import ROOT

PATIENCE = 60.0
LIBRARIES = "/opt/python/lib"  # of a Python that is built with shared ones
PACKAGES = ("/opt/decaf-node", "/opt/packages")  # where the machine sees this checkout and what it needs
COMMAND = """#!/bin/sh
# what the Debian package installs, but from a checkout; DECAF_LAB_PROGRAM: another program than the command itself
export PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1 LD_LIBRARY_PATH={libraries}
exec {python} ${{DECAF_LAB_PROGRAM:--m decaf_node.cli.main}} "$@"
"""


class Machine:
    """A booted machine. root: its file system as this one sees it; leader: its PID 1 here."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self.leader = leader

    def command(self, *words: str | Path) -> list[str]:
        clean = ["env", "-i", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        return ["nsenter", "--target", str(self.leader), "--all", *clean, *map(str, words)]

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it there as root, whatever comes of it."""
        nothing = subprocess.DEVNULL  # whatever ours is: Ansible refuses one that does not block
        command = self.command(*words)
        return subprocess.run(command, stdin=nothing, capture_output=True, text=True, timeout=300, check=False)

    def do(self, *words: str | Path) -> str:
        """Run it there as root; return what it prints. It must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return properties of a unit."""
        lines = self.do("systemctl", "show", unit, f"--property={','.join(properties)}").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def value(self, unit: str, name: str) -> str:
        return self.show(unit, name)[name]

    def journal(self, unit: str) -> str:
        return self.do("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def until(self, holds: Callable[[], bool], what: str, unit: str = "decaf-node", patience: float = PATIENCE) -> None:
        """Wait for it; say what the unit says if it never comes."""
        end = time.monotonic() + patience
        while not holds():
            if time.monotonic() > end:
                shown = self.run("systemctl", "status", "--full", "--lines=40", unit).stdout
                raise AssertionError(f"it never came so far: {what}\n{shown}")
            time.sleep(0.1)


@contextmanager
def booted(folder: Path, prepare: Callable[[Path], None]) -> Iterator[Machine]:
    """Boot a machine that has this checkout installed, as ``bare`` does."""

    def installed(root: Path) -> None:
        _install(root)
        prepare(root)

    binds = [f"--bind-ro={ROOT}:{PACKAGES[0]}", f"--bind-ro={_packages()}:{PACKAGES[1]}", *_python_bind()]
    with bare(folder, installed, binds) as machine:
        machine.do("systemd-sysusers")
        machine.do("systemd-tmpfiles", "--create", "decaf-node.conf")
        yield machine


@contextmanager
def bare(folder: Path, prepare: Callable[[Path], None], binds: Sequence[str]) -> Iterator[Machine]:
    """Boot a machine with the files that ``prepare`` puts under its root, and end it afterwards. folder: empty."""
    root = _overlay(folder)
    _forget_this_machine(root)
    prepare(root)
    nspawn = ["systemd-nspawn", "-q", f"--directory={root}", "--boot", "--register=no", "--keep-unit"]
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(
            [*nspawn, "--private-network", *binds, "--", "systemd.unit=multi-user.target"],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
        try:
            yield _came_up(process, root, folder / "console")
        finally:
            process.send_signal(signal.SIGTERM)  # nspawn has the machine shut down
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            subprocess.run(["umount", "--recursive", "--lazy", str(folder)], check=True)


def _overlay(folder: Path) -> Path:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder)], check=True)
    root, upper, work = (folder / name for name in ("root", "upper", "work"))
    for place in (root, upper, work):
        place.mkdir()
    layers = f"lowerdir=/,upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(root)], check=True)
    return root


def _forget_this_machine(root: Path) -> None:
    """Nothing of what runs here is to run there."""
    (root / "etc/machine-id").write_text("")
    for folder in ("etc/systemd/system", "lib/systemd/system"):
        for wanted in (root / folder).glob("multi-user.target.wants"):
            shutil.rmtree(wanted)


def _install(root: Path) -> None:
    """Put the units and the command where a package puts them."""
    units = root / "usr/lib/systemd"
    for source, target in (
        ("decaf-node.service", units / "system"),
        ("decaf-node@.service", units / "system"),
        ("user/decaf-node.service", units / "user"),
    ):
        shutil.copy(ROOT / "systemd" / source, target)
    for kind in ("sysusers", "tmpfiles"):  # as docs/operating.md says
        place = root / f"etc/{kind}.d"
        place.mkdir(exist_ok=True)
        shutil.copy(ROOT / f"systemd/decaf-node.{kind}", place / "decaf-node.conf")
    command = root / "usr/bin/decaf-node"
    command.write_text(COMMAND.format(path=":".join(PACKAGES), python=python(), libraries=LIBRARIES))
    command.chmod(0o755)


def _packages() -> str:
    return next(place for place in site.getsitepackages() if place.startswith(sys.prefix))


def python() -> str:
    """Return Python as the machine sees it: one below a home directory would be hidden from the service."""
    real = Path(sys.executable).resolve()
    return (
        str(real) if sys.base_prefix == "/usr" else f"/opt/python/{real.relative_to(Path(sys.base_prefix).resolve())}"
    )


def _python_bind() -> list[str]:
    return [] if sys.base_prefix == "/usr" else [f"--bind-ro={Path(sys.base_prefix).resolve()}:/opt/python"]


def _came_up(process: subprocess.Popen[bytes], root: Path, console: Path) -> Machine:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children and _is_up(machine := Machine(root, int(children[0]))):
            return machine
        time.sleep(0.1)
    raise AssertionError(f"the machine never came up:\n{console.read_text(errors='replace')[-3000:]}")


def _is_up(machine: Machine) -> bool:
    if not os.path.exists(f"/proc/{machine.leader}/ns/pid"):
        return False
    return machine.run("systemctl", "is-active", "multi-user.target").stdout.strip() == "active"
