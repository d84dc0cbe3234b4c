"""The service in a booted systemd: as root, with systemd-nspawn. Scenarios: ``tests/daemon/systemd_lab.py``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import systemd_lab
from tests.daemon.network_lab import ALONE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(700)]


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What became of each scenario, all in one machine."""
    for tool in ("unshare", "nsenter", "systemd-nspawn", "systemctl", "useradd", "runuser"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} command")
    trial = subprocess.run([*ALONE, "true"], capture_output=True, text=True, check=False)
    if trial.returncode:
        pytest.skip(f"namespaces cannot be made here: {trial.stderr.strip()}")
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "tests.daemon.systemd_lab"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return {document["scenario"]: document for document in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("scenario", [scenario.__name__ for scenario in systemd_lab.SCENARIOS])
def test_in_a_booted_systemd(scenario: str, told: dict[str, Any]) -> None:
    assert told[scenario]["error"] == "", told[scenario]["error"]
