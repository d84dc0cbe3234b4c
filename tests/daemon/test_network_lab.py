"""Attacks between real hosts, each in a network namespace of its own: as root, with unshare, ip and libfaketime."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon.network_lab import ALONE, SCENARIOS

NEEDS = {"an_expired_certificate": "faketime"}


@pytest.mark.e2e
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_between_hosts(scenario: str) -> None:
    for tool in ("unshare", "ip", *filter(None, [NEEDS.get(scenario)])):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} command")
    trial = subprocess.run([*ALONE, "true"], capture_output=True, text=True, check=False)
    if trial.returncode:
        pytest.skip(f"namespaces cannot be made here: {trial.stderr.strip()}")
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "tests.daemon.network_lab", scenario],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("done\n")
