"""``decaf-node simulate`` in processes of its own: what it prints is a function of its options, and Ctrl-C ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.command import PROGRAM, decaf_node

pytestmark = pytest.mark.slow

STORM = ("simulate", "--nodes", "5", "--rounds", "8", "--faults", "storm", "--spread", "5", "--seeds", "3", "--json")


def played(*options: str, hash_seed: str = "0") -> dict[str, Any]:
    done = decaf_node(*STORM, *options, PYTHONHASHSEED=hash_seed)
    assert done.returncode in (0, 70), done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    del document["seconds"]
    return document


def test_the_same_options_give_the_same_figures_whatever_the_hash_seed_and_the_jobs() -> None:
    first = played("--jobs", "1", hash_seed="1")
    assert first == played("--jobs", "1", hash_seed="2")
    assert first == played("--jobs", "2", hash_seed="3")


def test_other_seeds_give_another_trace() -> None:
    assert played()["trace"] != played("--first-seed", "1")["trace"]


def test_adapters_learn(tmp_path: Path) -> None:
    done = decaf_node(
        *("simulate", "--nodes", "4", "--rounds", "8", "--payload", "least-squares", "--jobs", "1", "--json"),
        *("--plot", tmp_path / "mesh.png"),
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["loss_end"] < 0.2 * document["loss_start"]
    assert (tmp_path / "mesh.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_the_workers_and_prints_what_was_finished(jobs: str) -> None:
    options = ("simulate", "--nodes", "3", "--rounds", "4", "--seeds", "1000000", "--jobs", jobs, "--json")
    process = subprocess.Popen(
        [*PROGRAM, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stderr is not None
    assert "seeds" in process.stderr.readline()  # the first line comes after some seconds
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, complaints = process.communicate(timeout=30)
    document = json.loads(out)
    assert (process.returncode, document["interrupted"]) == (130, True)
    assert document["seeds"] >= 1
    assert "Traceback" not in complaints
    assert psutil.wait_procs(workers, timeout=5)[1] == []
