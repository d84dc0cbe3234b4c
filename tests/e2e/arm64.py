"""Debian's Python for arm64 with the daemon's libraries, run by qemu: what a Jetson has, without its GPU.

Nothing of it is installed on this machine: apt and pip unpack into one folder, with a state of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

from tests.daemon.processes import ROOT

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCE = f"deb [signed-by={KEYRING}] http://deb.debian.org/debian bookworm main"
PACKAGES = ("python3.11", "libstdc++6")  # of Debian 12; the second is gRPC's
VERSION = "311"
TRAINERS = {"accelerate", "datasets", "matplotlib", "peft", "safetensors", "torch", "transformers"}
APT = """
APT::Architecture "arm64"; APT::Architectures {{ "arm64"; }}; APT::Install-Recommends "false";
APT::Sandbox::User "root"; Acquire::Languages "none"; Acquire::Retries "3";
Dir::State "{0}/state"; Dir::State::status "{0}/status"; Dir::Cache "{0}/cache";
Dir::Etc::SourceList "{0}/sources.list"; Dir::Etc::SourceParts "-";
"""


@dataclass(frozen=True)
class Arm64:
    """root: a Debian tree with a Python; libraries: what the daemon imports."""

    root: Path
    libraries: Path

    @property
    def runner(self) -> tuple[str, ...]:
        """A command that runs its arguments but the first, which is this machine's Python, by the other Python."""
        return ("sh", "-c", f'exec qemu-aarch64-static -L {self.root} {self.root}/usr/bin/python3.11 "$@"')

    @property
    def environ(self) -> dict[str, str]:
        return {"PYTHONPATH": f"{self.libraries}:{ROOT}"}

    def python(self, *arguments: str) -> str:
        """Run the other Python; return what it prints."""
        return subprocess.run(
            [*self.runner, sys.executable, *arguments],
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout


def unpack(folder: Path) -> Arm64:
    """Fetch and unpack everything into ``folder``."""
    made = Arm64(folder / "root", folder / "libraries")
    _unpack_debian(folder / "apt", made.root)
    _unpack_wheels(made.libraries)
    return made


def _unpack_debian(apt: Path, root: Path) -> None:
    for place in ("state/lists/partial", "cache/archives/partial"):
        (apt / place).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(SOURCE + "\n")
    (apt / "apt.conf").write_text(APT.format(apt))
    environ = {**os.environ, "APT_CONFIG": str(apt / "apt.conf")}
    for command in (["update", "-qq"], ["install", "-qq", "--yes", "--download-only", *PACKAGES]):
        subprocess.run(["apt-get", *command], env=environ, check=True, stdin=subprocess.DEVNULL, timeout=240)
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, root], check=True)


def _unpack_wheels(libraries: Path) -> None:
    """Take the daemon's dependencies, at the versions that the tests run with."""
    needed = [Requirement(line) for line in requires("decaf-node") or ()]
    names = [one.name for one in needed if one.name not in TRAINERS and (one.marker is None or one.marker.evaluate())]
    platforms = [f"--platform=manylinux_{version}_aarch64" for version in ("2_28", "2_17")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", f"--target={libraries}", *platforms]
    only = ["--only-binary=:all:", f"--python-version={VERSION}", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*command, *only, *names], check=True, timeout=240)
