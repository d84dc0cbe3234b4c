"""What `make dist` makes: its contents, and that it works once installed, from anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    made = subprocess.run([ROOT / "tools/dist.sh", out], capture_output=True, text=True, timeout=240)
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.count("PASSED") == 2, made.stdout
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    (built,) = dist.glob("*.whl")
    return zipfile.ZipFile(built)


def under(folder: str, pattern: str = "*") -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob(pattern) if path.is_file()}


def test_the_wheel_holds_every_module_the_protobuf_code_the_types_and_the_page(wheel: zipfile.ZipFile) -> None:
    files = {name for name in wheel.namelist() if name.startswith("decaf_node/")}
    modules = under("decaf_node", "*.py") | under("decaf_node", "*.pyi")
    assert files == modules | under("decaf_node/daemon/page") | {"decaf_node/py.typed"}
    assert {"decaf_node/v1/mesh_pb2.py", "decaf_node/v1/mesh_pb2_grpc.py", "decaf_node/v1/mesh_pb2.pyi"} <= files


def test_the_wheel_names_its_licence_and_its_command(wheel: zipfile.ZipFile) -> None:
    names = {name.split("/", 1)[1]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "decaf-node = decaf_node.cli.main:main" in wheel.read(names["entry_points.txt"]).decode()
    assert "License-Expression: Apache-2.0" in wheel.read(names["METADATA"]).decode()
    assert "licenses/LICENSE" in names


def test_the_wheel_brings_the_unit_files(wheel: zipfile.ZipFile) -> None:
    brought = {name.partition("/share/decaf-node/")[2] for name in wheel.namelist() if ".data/data/" in name}
    assert "systemd/decaf-node.service" in brought
    assert brought == under("systemd")


def test_the_source_archive_holds_what_belongs_to_the_package_and_no_more(dist: Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert under("systemd") | under("proto", "*.proto") | {"LICENSE", "README.md", "constraints.txt"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "."))]


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_what_is_installed_works_from_any_folder(dist: Path, tmp_path: Path, kind: str) -> None:
    """Only decaf-node is installed: what it needs is looked up where these tests find it."""
    (package,) = dist.glob(kind)
    venv, elsewhere = tmp_path / "venv", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "needs.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin/python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", "--no-build-isolation", package], check=True, timeout=120)

    def run(program: str, *words: str) -> str:
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(venv / "bin" / program), *words]
        done = subprocess.run(command, cwd=elsewhere, env=environ, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    assert run("python", "-c", "import decaf_node; print(decaf_node.__file__)").startswith(str(packages))
    installed = json.loads(run("decaf-node", "version", "--json"))["decaf-node"]
    assert package.name.startswith(f"decaf_node-{installed}")
    assert "dashboard" in run("decaf-node", "--help")
    assert "\nviolations    0 " in run("decaf-node", "simulate", "--nodes", "3", "--rounds", "3")
    assert (venv / "share/decaf-node/systemd/decaf-node.service").is_file()
