"""A daemon alone: what ``pip install decaf-node`` brings, without the extra ``train``, in an environment of its own.

The environment shows the very packages that these tests run with, and of these only the ones that a daemon needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from decaf_node.training.libraries import NEEDED
from tests.daemon.processes import ROOT, Daemon, mesh

pytestmark = pytest.mark.slow


def brought_by(name: str) -> dict[str, Distribution]:
    """Return the distributions that pip installs for ``name`` without extras, itself among them."""
    found: dict[str, Distribution] = {}
    wanted = [Requirement(name)]
    while wanted:
        one = wanted.pop()
        if one.name not in found and (one.marker is None or one.marker.evaluate({"extra": ""})):
            assert not one.extras, "they would have to be followed"
            found[one.name] = distribution(one.name)
            wanted += map(Requirement, found[one.name].requires or ())
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of that environment."""
    venv = tmp_path_factory.mktemp("daemon-alone") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    (packages,) = venv.glob("lib/python*/site-packages")
    for package in brought_by("decaf-node").values():
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(str(package.locate_file(top)))
    (packages / "decaf-node.pth").write_text(str(ROOT))
    return venv / "bin/python"


# nobody else is met, and no port is in anybody's way
ALONE = {
    "DECAF_NODE__LISTEN__ADDRESS": "127.0.0.1",
    "DECAF_NODE__LISTEN__PORT": "0",
    "DECAF_NODE__LISTEN__ENROLMENT_PORT": "0",
    "DECAF_NODE__DISCOVERY__MDNS": "false",
}


def run(python: Path, *words: Any) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | ALONE
    command = [python, "-m", "decaf_node.cli.main", *words]
    return subprocess.run(list(map(str, command)), env=environ, capture_output=True, text=True, timeout=60)


def test_nothing_that_trains_is_there(python: Path) -> None:
    look = f"import importlib.util as u; print([name for name in {NEEDED} if u.find_spec(name)])"
    found = subprocess.run([python, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "[]\n"


def test_what_needs_no_trainer_works(python: Path) -> None:
    for words in (["--help"], ["version", "--json"], ["simulate", "--nodes", "3", "--rounds", "3"]):
        done = run(python, *words)
        assert (done.returncode, done.stderr) == (0, ""), words


def test_daemons_mix(python: Path) -> None:
    with mesh() as make:
        one = begin(make("a"), python)
        other = begin(make("b", one), python)
        assert one.mixed().edges
        assert other.mixed().edges


def begin(daemon: Daemon, python: Path) -> Daemon:
    daemon.python = str(python)
    return daemon.start()


def test_whoever_wants_to_train_is_told_what_to_install(python: Path, tmp_path: Path) -> None:
    model, data = tmp_path / "model", tmp_path / "data.jsonl"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    data.write_text('{"text": "a"}\n')
    places = ["--config", tmp_path / "config.toml", "--state", tmp_path / "state", "--runtime", tmp_path / "run"]
    made = run(python, "init", "--mesh", "lab", "--model", model, "--data", data, *places[:4])
    assert made.returncode == 0, made.stderr
    for words in (["run", *places], ["simulate", "--payload", "least-squares"], ["plan", "--nodes", "4", *places]):
        done = run(python, *words)
        assert done.returncode == 78, (words, done.stdout, done.stderr)
        assert f'run {python} -m pip install "decaf-node[train]". [training.no-libraries]' in done.stderr
        assert "Traceback" not in done.stderr
    examined = run(python, "doctor", *places)
    assert "into the environment that decaf-node runs from" in examined.stdout


def test_init_says_so_where_labels_are_to_be_found(python: Path, tmp_path: Path) -> None:
    model, data, config = tmp_path / "model", tmp_path / "data.jsonl", tmp_path / "config.toml"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"architectures": ["BertModel"], "model_type": "bert"}))
    data.write_text('{"text": "a", "label": "x"}\n')
    made = run(python, "init", "--mesh", "lab", "--model", model, "--data", data, "--config", config)
    assert (made.returncode, made.stdout) == (78, "")
    assert "or write the settings first, with model.task and model.labels. [training.no-libraries]" in made.stderr
    assert not config.exists()
