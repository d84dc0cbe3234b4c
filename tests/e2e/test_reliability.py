"""What a mesh of real nodes survives: see ``docs/reliability.md``, which is written from the same lines.

As root, with unshare, ip, avahi, mkfs.ext4 and libfaketime; the faults are in ``tests/e2e/reliability``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.daemon.network_lab import ALONE
from tests.daemon.processes import ROOT
from tests.e2e.reliability.crowds import BY_ITSELF, WEEK
from tests.e2e.reliability.dying import POINTS
from tests.e2e.reliability.page import PAGE, page
from tests.e2e.reliability.play import NOISE
from tests.e2e.reliability.rooms import ASSETS

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(2500)]

TOOLS = ("unshare", "ip", "sysctl", "mkfs.ext4", "losetup", "faketime", "dbus-daemon", "avahi-daemon", "avahi-browse")
KILLED = tuple(f"daemon killed, {phase}" for phase in POINTS)
LASTING = ("20 % of the packets lost", "50 ± 10 ms delay each way", "1 Mbit/s a node")
ON_THE_MESH = (
    *KILLED,
    "trainer killed",
    "node hangs",
    "power cut",
    "disk full",
    "network in two halves",
    "cut in one direction",
    *LASTING,
    "link down, up with another address",
    "clean stop and start",
    "clock 40 days ahead",
    "interface comes after the start",
    "multicast is dropped",
    "two subnets and a router",
    "all restarted in turn",
)
FAULTS = ("five nodes start at once", *ON_THE_MESH, "twelve nodes start at once")
HELD = ("all faults", "a week")

SECONDS = 30.0  # until all have mixed again, beside the loading of torch
LASTING_SECONDS = 90.0
HISTORY_BYTES = 2048  # of a round
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the lab prints; it is left in the test's folder, for the page."""
    for tool in TOOLS:
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} command")
    if not (ASSETS / "minilm").is_dir():
        pytest.skip(f"the demo's files are not in {ASSETS}: make e2e fetches them")
    trial = subprocess.run([*ALONE, "losetup", "--find"], capture_output=True, text=True, check=False)
    if trial.returncode or not os.access("/dev/net/tun", os.W_OK):
        pytest.skip(f"there are no namespaces, loop or TAP devices to be had here: {trial.stderr.strip()}")
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "tests.e2e.reliability.lab"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=2400,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (tmp_path_factory.mktemp("reliability") / "lines").write_text(done.stdout)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def outcomes(lines: list[str]) -> dict[str, Any]:
    """By fault."""
    return {document["fault"]: document for document in map(json.loads, lines) if "fault" in document}


def test_the_page_has_a_row_for_every_fault() -> None:
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| \d+\.\d s(?: \(\d+\.\d s\))? \| \d+ \|$", PAGE.read_text(), re.M)
    assert rows == list(FAULTS)


def test_the_page_can_be_written_from_the_lines(lines: list[str], outcomes: dict[str, Any]) -> None:
    assert list(outcomes) == list(FAULTS)
    assert page(lines, "this machine").count("\n") == PAGE.read_text().count("\n")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_mesh_mixes_again(fault: str, outcomes: dict[str, Any]) -> None:
    outcome = outcomes[fault]
    within = LASTING_SECONDS if fault in LASTING or fault.endswith("start at once") else SECONDS
    assert outcome["seconds"] - outcome["loading"] < within, outcome


@pytest.mark.parametrize("fault", ON_THE_MESH)
def test_it_is_as_well_as_before(fault: str, outcomes: dict[str, Any]) -> None:
    outcome = outcomes[fault]
    learnt, now = outcome["accuracy"]
    assert now >= learnt - NOISE, outcome
    assert outcome["back"] == [], "a saved round number went back"
    assert outcome["alerts"] == {}
    assert outcome["lost"] <= (1 if fault in (*KILLED, "power cut", "trainer killed") else 0), outcome


@pytest.mark.parametrize("run", HELD)
def test_nothing_grows(run: str, lines: list[str]) -> None:
    held = row_of(run, lines)
    first, last = held["rounds"]
    for process in ("daemon", "trainer"):
        early, late = held[process]
        assert late["memory"] < 1.1 * early["memory"] + 8 * MIB, held
        assert late["files"] <= early["files"] + 8, held
        assert late["threads"] <= early["threads"] + 4, held
        assert late["disk"] <= early["disk"] + HISTORY_BYTES * (last - first) + 2 * MIB, held


def test_a_week_is_one_of_mixing_and_learning(lines: list[str]) -> None:
    week = row_of("a week", lines)
    assert week["mixes"] > 0.9 * WEEK, week
    assert week["accuracy"] > BY_ITSELF, week


def row_of(run: str, lines: list[str]) -> dict[str, Any]:
    return next(document for document in map(json.loads, lines) if document.get("held") == run)
