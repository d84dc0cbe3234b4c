"""The image for a Jetson, built for real on a Debian of its own, and a node in it.

Needs root, and Debian's packages ``buildah`` and ``debootstrap``. The base has what NVIDIA's has: Python, and torch
where that finds it. Here it is the packages of these tests, the largest of them by name only: a daemon needs none.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.processes import ROOT, until
from tests.e2e.needs import root_and, the_same_python

IMAGE, BASE = "localhost/decaf-node-test", "localhost/decaf-node-test-base"
BY_NAME = ("pyarrow", "torch", "transformers", "scipy", "pandas", "sympy", "selenium", "kubernetes_validate", "mypy")
SETTINGS = """[mesh]
name = "lab"
[listen]
port = 0
enrolment_port = 0
[discovery]
mdns = false
[model]
path = "/none"
[data]
train = ["/none"]
[training]
trainer = "external"
"""
ISOLATED = ("--isolation", "chroot")
HEALTH = ("python", "/opt/decaf-node/health.py")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def buildah(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["buildah", *map(str, words)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500)


def do(*words: str | Path) -> str:
    done = buildah(*words)
    assert done.returncode == 0, f"buildah {words}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@contextmanager
def container(image: str) -> Iterator[str]:
    name = do("from", image)
    try:
        yield name
    finally:
        buildah("rm", name)


def make_base() -> None:
    """Make a Debian with Python, which knows the packages of these tests."""
    mirror = subprocess.check_output(["apt-get", "indextargets", "--format", "$(REPO_URI)"], text=True).split()[0]
    with container("scratch") as name:
        system = Path(do("mount", name))
        strap = ["debootstrap", "--variant=minbase", "--include=python3,python3-venv"]
        codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
        made = subprocess.run([*strap, codename, system, mirror], capture_output=True, text=True, timeout=400)
        assert made.returncode == 0, made.stdout[-3000:] + made.stderr
        shutil.copytree("/etc/apt/apt.conf.d", system / "etc/apt/apt.conf.d", dirs_exist_ok=True)
        bring_packages(system / f"usr/local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/dist-packages")
        do("commit", name, BASE)


def bring_packages(there: Path) -> None:
    there.mkdir(parents=True, exist_ok=True)
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if each.is_file() and each.suffix in (".py", ".so"):
            shutil.copy2(each, there)
        elif each.is_dir() and each.name not in BY_NAME and "decaf_node" not in each.name:
            shutil.copytree(each, there / each.name, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root_and("buildah", "debootstrap")
    the_same_python()
    context = tmp_path_factory.mktemp("context")
    subprocess.run([ROOT / "tools/dist.sh", context / "dist"], check=True, capture_output=True, timeout=240)
    shutil.copy(ROOT / "constraints.txt", context)
    shutil.copytree(ROOT / "deploy", context / "deploy")
    try:
        make_base()
        dockerfile = ("--file", context / "deploy/jetson/Dockerfile", "--build-arg", f"BASE={BASE}")
        do("build", *ISOLATED, "--format", "docker", *dockerfile, "--tag", IMAGE, context)
        yield IMAGE
    finally:
        buildah("rmi", "--force", IMAGE, BASE)


def test_the_image_says_who_runs_it_and_how_it_is(image: str) -> None:
    config = json.loads(do("inspect", "--type", "image", image))["Docker"]["config"]
    assert config["User"] == "10001"
    assert config["Healthcheck"]["Test"] == ["CMD", *HEALTH]
    assert (config["Entrypoint"], config["Cmd"]) == (["decaf-node"], ["run"])


def test_a_node_in_it_is_founded_runs_and_is_healthy(image: str, tmp_path: Path) -> None:
    settings = tmp_path / "config.toml"
    settings.write_text(SETTINGS)
    with container(image) as name:
        run = ("run", *ISOLATED, name, "--")
        versions = json.loads(do(*run, "decaf-node", "version", "--json"))
        assert versions["decaf-node"] is not None
        assert versions["torch"] is not None, "the base's is seen"
        do("copy", "--chown", "10001", name, settings, "/etc/decaf-node/config.toml")
        do(*run, "decaf-node", "init", "--mesh", "lab")
        assert buildah(*run, *HEALTH).returncode == 1, "nothing runs yet"
        daemon = subprocess.Popen(["buildah", *run, "decaf-node", "run"], start_new_session=True)
        try:
            until(lambda: buildah(*run, *HEALTH).returncode == 0, 60.0)
            assert buildah(*run, *HEALTH, "decaf_node.v1.Mesh").returncode == 1, "alive, but no trainer has come"
            assert json.loads(do(*run, "decaf-node", "status", "--json"))["mesh"] == "lab"
            do(*run, "decaf-node", "leave")
            assert daemon.wait(30) == 0
        finally:
            if daemon.poll() is None:
                os.killpg(daemon.pid, signal.SIGKILL)
                daemon.wait()
