"""The demo as people run it: the numbers, and what happens to its processes.

Needs the demo's files (`make e2e` fetches them) and takes minutes on two cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from decaf_node.daemon.client import Client
from decaf_node.daemon.reports import StatusReport
from decaf_node.errors import DaemonUnreachable, TryAgain

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
ASSETS = Path(os.environ.get("DECAF_NODE_DEMO_ASSETS", ROOT / ".demo"))
DEMO = [sys.executable, "-m", "decaf_node.cli.main", "demo", "--assets", str(ASSETS)]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short path for all that the demo makes; its processes have it in their command lines."""
    folder = Path(tempfile.mkdtemp(prefix="dn-", dir="/tmp"))
    yield folder
    left = ours(folder)
    for process in left:
        process.kill()
    shutil.rmtree(folder)
    assert not left


def ours(place: Path) -> list[psutil.Process]:
    """Return the processes of demos run in ``place``, whoever their parent is."""

    def is_ours(process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and any(str(place) in word for word in process.cmdline())
        except psutil.Error:
            return False

    return [process for process in psutil.process_iter() if is_ours(process)]


def start(place: Path, *options: str) -> subprocess.Popen[str]:
    with (place / "screen").open("a") as screen:
        return subprocess.Popen(
            [*DEMO, "--json", *options],
            stdout=subprocess.PIPE,
            stderr=screen,
            text=True,
            cwd=place,
            env=os.environ | {"TMPDIR": str(place), "PYTHONPATH": str(ROOT)},
        )


def finish(demo: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = demo.communicate(timeout=800)
    assert demo.returncode == 0, said
    document: dict[str, Any] = json.loads(said)
    return document


def eventually(what: Callable[[], Any], seconds: float = 240.0) -> Any:
    """Wait until ``what()`` is true, and return it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError("it did not come to pass")


def mixed(place: Path, number: int, rounds: int) -> StatusReport | None:
    """Return the status of node ``number`` of the demo once it has mixed ``rounds`` rounds."""
    work = next(place.glob("decaf-????????"), place)  # not decaf-demo, where its results go
    with contextlib.suppress(DaemonUnreachable, TryAgain), Client(work / str(number) / "run/control.sock") as client:
        if (status := client.status()).mixes >= rounds:
            return status
    return None


def pid_of(place: Path, number: int) -> int:
    found: int
    (found,) = (process.pid for process in ours(place) if f"/{number}/config.toml" in " ".join(process.cmdline()))
    return found


def test_the_mesh_ends_near_one_place_and_far_above_alone(place: Path) -> None:
    document = finish(start(place))
    assert document["mesh"] > document["centralized"] - 0.06
    assert document["mesh"] > document["alone"] + 0.3
    assert document["alone"] < 0.45
    assert [one["gone"] for one in document["nodes"]] == [False] * 4
    assert document["bytes"] > 0
    assert Path(document["plot"]).read_bytes().startswith(b"\x89PNG")
    assert (Path(document["adapter"]) / "adapter_config.json").is_file()
    assert not list(place.glob("decaf-????????"))  # the work folder


def test_two_at_the_same_time_and_again(place: Path) -> None:
    demos = [start(place, "--rounds", "2"), start(place, "--rounds", "2", "--iid")]
    documents = [finish(demo) for demo in demos]
    documents.append(finish(start(place, "--rounds", "2")))
    assert len({document["adapter"] for document in documents}) == 3
    for document in documents:
        assert not any(one["gone"] for one in document["nodes"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_puts_everything_away_when_interrupted(place: Path, number: signal.Signals, code: int) -> None:
    demo = start(place)
    eventually(lambda: mixed(place, 1, 1))
    demo.send_signal(number)
    demo.communicate(timeout=30)
    assert demo.returncode == code
    assert not ours(place)
    assert not list(place.glob("decaf-????????"))
    assert "Traceback" not in (place / "screen").read_text()


def test_even_kill_9_of_the_demo_leaves_no_process(place: Path) -> None:
    demo = start(place)
    eventually(lambda: mixed(place, 1, 1))
    demo.kill()
    demo.communicate()
    eventually(lambda: not ours(place), seconds=30)


def test_who_is_killed_does_not_stop_the_others_and_comes_back_with_the_command_that_is_shown(place: Path) -> None:
    demo = start(place, "--rounds", "20")
    before = eventually(lambda: mixed(place, 4, 3))
    trainer = eventually(lambda: mixed(place, 2, 3)).trainer.pid
    for victim in (pid_of(place, 3), trainer, pid_of(place, 4)):
        os.kill(victim, signal.SIGKILL)
    for name in ("newsroom-3", "newsroom-4"):  # it says why a node is gone
        eventually(lambda: f"{name} is gone (killed by SIGKILL)" in (place / "screen").read_text())  # noqa: B023
    command = next(
        line
        for line in (place / "screen").read_text().splitlines()
        if line.startswith("  ") and "/4/config.toml" in line
    )
    again = subprocess.Popen(shlex.split(command), stderr=subprocess.DEVNULL, cwd=ROOT)
    after = eventually(lambda: mixed(place, 4, before.mixes + 1))
    assert after.node == before.node
    assert after.round >= before.saved_round
    document = finish(demo)
    again.wait(timeout=10)
    nodes = document["nodes"]
    assert [one["gone"] for one in nodes] == [False, False, True, False], (place / "screen").read_text()
    assert nodes[2]["round"] < 20 <= nodes[3]["round"]
    assert document["mesh"] == pytest.approx(sum(nodes[number]["mesh"] for number in (0, 1, 3)) / 3)
