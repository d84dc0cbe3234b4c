from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built by pip from a copy of what belongs to the source, so that nothing is left behind here."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    subprocess.run(["cp", "-r", "decaf_node", "pyproject.toml", "README.md", "LICENSE", source], cwd=ROOT, check=True)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, f"--wheel-dir={out}", source], check=True, timeout=240)
    (built,) = out.iterdir()
    return zipfile.ZipFile(built)


@pytest.mark.slow
def test_the_wheel_holds_every_module_the_protobuf_code_the_types_and_the_page(wheel: zipfile.ZipFile) -> None:
    files = {name for name in wheel.namelist() if name.startswith("decaf_node/")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "decaf_node").rglob("*.py*") if path.suffix != ".pyc"}
    page = {str(path.relative_to(ROOT)) for path in (ROOT / "decaf_node/daemon/page").rglob("*") if path.is_file()}
    assert files == modules | page | {"decaf_node/py.typed"}
    assert {"decaf_node/v1/mesh_pb2.py", "decaf_node/v1/mesh_pb2_grpc.py", "decaf_node/v1/mesh_pb2.pyi"} <= files


@pytest.mark.slow
def test_the_wheel_names_its_licence_and_its_command(wheel: zipfile.ZipFile) -> None:
    names = {name.split("/", 1)[1]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "decaf-node = decaf_node.cli.main:main" in wheel.read(names["entry_points.txt"]).decode()
    assert "License-Expression: Apache-2.0" in wheel.read(names["METADATA"]).decode()
    assert "licenses/LICENSE" in names
