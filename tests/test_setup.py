"""tools/setup.sh, which make calls before anything is installed, on machines that lack something."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parent.parent / "tools" / "setup.sh"
OLD = "#!/bin/bash\n[[ $2 == *version_info* ]] && exit 1\n[[ $2 == pass ]]\n"
WITHOUT_VENV = "#!/bin/bash\n[[ $2 != *ensurepip* ]]\n"
BROKEN = "#!/bin/bash\nexit 127\n"  # as pyenv's shim of a version that is not switched on


def machine(folder: Path, pythons: dict[str, str]) -> dict[str, str]:
    """The environment of a machine that has these programs named python... and no others."""
    for tool in ("bash", "dirname", "awk"):
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    for name, script in pythons.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def setup(venv: Path, environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SETUP, venv, "what is there already", *arguments], env=environ, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("pythons", "words"),
    [
        ({}, "There is no Python here: install Python 3.10 or newer and run make again."),
        ({"python3": BROKEN}, "There is no Python here"),
        ({"python3": OLD}, "python3 is too old: install Python 3.10 or newer and run make again."),
        ({"python3": WITHOUT_VENV}, 'with "sudo apt install python3-venv" and run make again.'),
        ({"python3": OLD, "python3.12": WITHOUT_VENV}, "python3.12 cannot make virtual environments"),
    ],
)
def test_a_machine_without_a_fitting_python_gets_one_sentence(
    tmp_path: Path, pythons: dict[str, str], words: str
) -> None:
    venv, tools = tmp_path / "venv", tmp_path / "bin"
    tools.mkdir()
    done = setup(venv, machine(tools, pythons), "pip")
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not venv.exists()


@pytest.mark.slow
def test_the_newest_python_that_works_makes_the_environment_once(tmp_path: Path) -> None:
    venv, tools = tmp_path / "venv", tmp_path / "bin"
    tools.mkdir()
    works = f'#!/bin/bash\nexec {sys.executable} "$@"\n'
    environ = machine(tools, {"python3.13": BROKEN, "python3.12": WITHOUT_VENV, "python3.11": works, "python3": OLD})
    first = setup(venv, environ, "pip")
    assert (first.returncode, first.stdout) == (0, "")
    assert first.stderr.splitlines()[0] == f"Making {venv} with {tools}/python3.11 ..."
    second = setup(venv, environ, "pip")
    assert (second.returncode, second.stderr) == (0, "Installing what is there already ...\n")


@pytest.mark.slow
def test_an_installation_that_fails_says_what_to_do(tmp_path: Path) -> None:
    venv, tools = tmp_path / "venv", tmp_path / "bin"
    tools.mkdir()
    environ = machine(tools, {"python3": f'#!/bin/bash\nexec {sys.executable} "$@"\n'})
    done = setup(venv, environ, "--no-index", "decaf-no-such-package")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Installing what is there already failed for the reason above")
