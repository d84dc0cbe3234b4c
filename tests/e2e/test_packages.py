"""The Debian package: built, checked by lintian, and lived through on a machine with a systemd of its own.

Needs root, and Debian's packages ``systemd-container`` and ``lintian``. The package is built without torch, as for a
Jetson, and finds the one that these tests run with where NVIDIA's would be.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.network_lab import ALONE
from tests.e2e.needs import root_and, the_same_python

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
UNPACKED = {"DPKG_DEB_COMPRESSOR_TYPE": "none"}  # to save time
PACKED = {"DPKG_DEB_COMPRESSOR_TYPE": "gzip"}


def run(*words: str | Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, words)), cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package as it is, of a higher version, and without what it brings."""
    root_and("systemd-nspawn", "lintian", "dpkg-deb", "ansible-playbook")
    the_same_python()
    folder = tmp_path_factory.mktemp("packages")
    tree, control = folder / "tree", folder / "tree/DEBIAN/control"
    run("tools/dist.sh", folder)
    (wheel,) = folder.glob("*.whl")
    run("deploy/debian/build.sh", wheel, tree, folder, TORCH="system", **UNPACKED)
    (built,) = folder.glob("decaf-node_*.deb")
    built.rename(folder / "old.deb")
    control.write_text(control.read_text().replace("\nArchitecture:", "+upgraded\nArchitecture:"))
    run("dpkg-deb", "--root-owner-group", "--build", tree, folder / "new.deb", **UNPACKED)
    shutil.rmtree(tree / "usr/lib/decaf-node/lib")
    sums = (tree / "DEBIAN/md5sums").read_text().splitlines(keepends=True)
    (tree / "DEBIAN/md5sums").write_text("".join(line for line in sums if "/decaf-node/lib/" not in line))
    run("dpkg-deb", "--root-owner-group", "--build", tree, folder / "stub.deb", **PACKED)
    yield folder
    shutil.rmtree(folder)


def test_lintian_has_nothing_to_say(packages: Path) -> None:
    """Of what is ours: other people's packages are left out."""
    assert run("lintian", "--allow-root", "--fail-on", "error,warning", packages / "stub.deb") == ""


def test_it_depends_on_the_python_it_was_built_for(packages: Path) -> None:
    major, minor = sys.version_info[:2]
    depends = run("dpkg-deb", "--field", packages / "old.deb", "Depends")
    assert f"python3 (>= {major}.{minor}~), python3 (<< {major}.{minor + 1}~)" in depends


def test_the_pause_between_restarts_grows_where_systemd_knows_how(packages: Path) -> None:
    listed = run("dpkg-deb", "--contents", packages / "stub.deb")
    knows = int(run("systemctl", "--version").split()[1]) >= 254
    for unit in ("decaf-node", "decaf-node@"):
        assert (f"/systemd/system/{unit}.service.d/growing-delay.conf" in listed) is knows


def test_nothing_in_it_tells_where_it_was_built(packages: Path) -> None:
    listed = run("dpkg-deb", "--contents", packages / "old.deb")
    owners = {line.split()[1] for line in listed.splitlines()}
    assert owners == {"root/root"}
    assert "/site-packages/decaf_node/cli/__pycache__/main.cpython-" in listed, (
        "it need not be compiled by whom runs it"
    )
    assert "direct_url.json" not in listed


def test_its_life(packages: Path) -> None:
    """Installed, configured, started, upgraded, removed, purged."""
    lab = [*ALONE, sys.executable, "-m", "tests.e2e.package_lab", str(packages), sysconfig.get_path("purelib")]
    done = subprocess.run(lab, cwd=ROOT, capture_output=True, text=True, timeout=800)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("done\n")
