"""``status``, ``peers``, ``rounds``, ``export`` and what operators do, of real daemons with scripted trainers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import PROGRAM, decaf_node
from tests.cli.test_main import HEAVY
from tests.daemon.processes import Daemon, mesh

pytestmark = pytest.mark.slow

MIXES = 4


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """One of two nodes that mix with each other; this one is paused after a few rounds.

    Nothing is clipped: two that agree to the last bit in most rounds, and not where one was late, clip each other then.
    """
    plain = {"robust": "off"}
    with mesh() as make:
        first = make("orin-a", security=plain).start()
        make("desk-b", first, security=plain).start()
        first.until(lambda status: status.mixes >= MIXES and status.saved_round >= MIXES)
        with first.client() as client:
            client.pause()
        first.until(lambda status: status.phase == "paused")
        yield first


def ask(daemon: Daemon, *command: str) -> str:
    done = decaf_node(*command, "--state", daemon.state, "--runtime", daemon.runtime)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def ask_json(daemon: Daemon, *command: str) -> Any:
    return json.loads(ask(daemon, *command, "--json"))


def test_status_is_one_plain_screen(daemon: Daemon) -> None:
    screen = ask(daemon, "status")
    lines = [line.rstrip() for line in screen.splitlines()]
    assert lines[0].startswith("orin-a (")
    assert lines[3].startswith("round ")
    assert lines[3].endswith(", paused: an operator has paused it")
    assert "neighbours  desk-b" in lines
    assert "\x1b" not in screen
    assert len(lines) < 24


def test_status_as_json_has_every_field(daemon: Daemon) -> None:
    report = ask_json(daemon, "status")
    assert (report["name"], report["phase"]) == ("orin-a", "paused")
    assert report["last_round"]["round"] == report["round"] - 1
    assert report["trainer"]["state"] == "ready"


def test_peers_are_listed(daemon: Daemon) -> None:
    assert [line.split()[:3:2] for line in ask(daemon, "peers").splitlines()[:2]] == [
        ["name", "state"],
        ["desk-b", "alive"],
    ]
    (peer,) = ask_json(daemon, "peers")["peers"]
    assert (peer["name"], peer["state"]) == ("desk-b", "alive")


def test_rounds_are_listed_newest_last(daemon: Daemon) -> None:
    history = ask_json(daemon, "rounds")["rounds"]
    numbers = [row["round"] for row in history]
    assert numbers == sorted(numbers)
    assert ask_json(daemon, "rounds", "--limit", "2")["rounds"] == history[-2:]
    edges = [edge for row in history for edge in row["edges"]]
    assert edges
    assert all(edge["weight"] == pytest.approx(0.5) for edge in edges)
    table = ask(daemon, "rounds").splitlines()
    assert table[0].split()[:4] == ["mixed", "at", "round", "loss"]
    assert len(table) == 1 + len(history)


def test_pause_and_resume_say_the_phase(daemon: Daemon) -> None:
    assert ask_json(daemon, "resume")["phase"] != "paused"
    assert ask(daemon, "pause") == "The node is paused now.\n"
    assert ask_json(daemon, "pause") == {"phase": "paused"}


def test_what_else_an_operator_does_is_said_in_a_sentence(daemon: Daemon) -> None:
    assert ask(daemon, "eval").startswith("accuracy 50.0 %, loss 0.000 on 10 held-out examples, after round ")
    assert ask(daemon, "log-level", "warning") == "The log level is warning now, and was info.\n"
    assert ask_json(daemon, "log-level", "info") == {"before": "warning"}
    assert ask(daemon, "reload") == "The certificates are read anew. The settings are as they were.\n"
    refused = decaf_node("mix", "--runtime", daemon.runtime)
    assert refused.returncode == 75
    assert "There are no local steps to end, the node is paused" in refused.stderr


def test_export_copies_the_saved_adapter(daemon: Daemon, tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    assert "load_exported" in ask(daemon, "export", str(target))
    assert any(target.iterdir())


def test_status_loads_nothing_that_it_does_not_need(daemon: Daemon) -> None:
    """What that costs: ``benchmarks/commands.py``."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *PROGRAM[1:], "status", "--runtime", daemon.runtime],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    packages = {line.rsplit("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "grpc" in packages
    assert packages.isdisjoint({*HEAVY, "zeroconf", "prometheus_client", "opentelemetry"})


def test_a_daemon_that_does_not_answer_in_time_is_75(tmp_path: Path) -> None:
    code = "import socket, sys, signal; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); "
    code += "print('here', flush=True); signal.pause()"
    hung = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "control.sock")], stdout=subprocess.PIPE)
    assert hung.stdout is not None
    with hung.stdout:
        hung.stdout.readline()
        done = decaf_node("status", "--runtime", tmp_path)
        hung.kill()
    hung.wait()
    assert done.returncode == 75
    assert "[daemon.slow]" in done.stderr


def test_leave_ends_the_daemon(daemon: Daemon) -> None:
    """The last test of this daemon."""
    said = ask(daemon, "leave")
    assert said.startswith("The node has left the mesh: 1 member was told, and round ")
    assert daemon.wait() == 0
