"""The units, read while no systemd runs: no key that it does not know, little exposure, each line with its why."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from decaf_node.errors import KINDS, Bug, DaemonUnreachable, TryAgain

ROOT = Path(__file__).parent.parent
UNITS = ROOT / "systemd"
SYSTEM, TEMPLATE, USER = UNITS / "decaf-node.service", UNITS / "decaf-node@.service", UNITS / "user/decaf-node.service"
HARDENING = "# --- what it may not do"
MOST = 20  # tenths: an exposure of 2.0

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze command"
)


def analyze(*words: str | Path, runtime: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(runtime), "HOME": str(runtime)},
    )


@needs_systemd
@pytest.mark.parametrize(
    ("unit", "name", "options"),
    [
        (SYSTEM, "decaf-node.service", ()),
        (TEMPLATE, "decaf-node@lab.service", ()),
        (USER, "decaf-node.service", ("--user",)),
    ],
    ids=["system", "template", "user"],
)
def test_systemd_knows_every_key(unit: Path, name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    copy = tmp_path / name
    copy.write_text(unit.read_text().replace("/usr/bin/decaf-node", "/bin/true"))  # it must be there
    done = analyze(*options, "verify", copy, runtime=tmp_path)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_an_unknown_key_would_be_found(tmp_path: Path) -> None:
    copy = tmp_path / "decaf-node.service"
    copy.write_text(SYSTEM.read_text().replace("/usr/bin/decaf-node", "/bin/true").replace("Nice=", "Nise="))
    assert "Nise" in analyze("verify", copy, runtime=tmp_path).stderr


@needs_systemd
@pytest.mark.parametrize("unit", [SYSTEM, TEMPLATE], ids=["system", "template"])
def test_little_is_exposed_and_the_page_says_how_little(unit: Path, tmp_path: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={MOST}", unit, runtime=tmp_path)
    assert done.returncode == 0, done.stdout
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
    assert found is not None
    assert f"exposure of {found[1]} " in (ROOT / "docs/operating.md").read_text()


@pytest.mark.parametrize("unit", [SYSTEM, TEMPLATE], ids=["system", "template"])
def test_every_line_of_the_sandbox_has_a_comment(unit: Path) -> None:
    before = "blank"
    sandbox = unit.read_text().partition(HARDENING)[2].partition("[Install]")[0].splitlines()[1:]
    assert len(sandbox) > 40
    for line in sandbox:
        kind = "comment" if line.startswith("#") else "setting" if line else "blank"
        assert kind != "setting" or before != "blank", f"nothing says why: {line}"
        before = kind


def test_the_template_is_the_unit_with_places_of_its_own() -> None:
    def settings(unit: Path) -> list[str]:
        return [line for line in unit.read_text().splitlines() if line and not line.startswith("#")]

    ours = [
        line.replace("decaf-node %i", "decaf-node")
        .replace("/etc/decaf-node/%i/", "/etc/decaf-node/")
        .replace("decaf-node-%i", "decaf-node")
        for line in settings(TEMPLATE)
    ]
    assert ours == settings(SYSTEM)


@pytest.mark.parametrize("unit", [SYSTEM, TEMPLATE, USER], ids=["system", "template", "user"])
def test_what_a_restart_cannot_help_is_not_started_again(unit: Path) -> None:
    found = re.search(r"^RestartPreventExitStatus=(.*)$", unit.read_text(), re.M)
    assert found is not None
    worth_it = {kind.exit_code for kind in (DaemonUnreachable, Bug, TryAgain)}
    assert set(map(int, found[1].split())) == set(KINDS) - worth_it


@pytest.mark.parametrize("unit", [SYSTEM, TEMPLATE, USER], ids=["system", "template", "user"])
def test_what_a_restart_may_help_is_tried_for_ever_and_slowly(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    assert "StartLimitIntervalSec=0" in lines
    (pause,) = (int(line.partition("=")[2]) for line in lines if line.startswith("RestartSec="))
    assert pause >= 10


@pytest.mark.parametrize("unit", [SYSTEM, TEMPLATE, USER], ids=["system", "template", "user"])
def test_nothing_newer_than_systemd_249_is_used(unit: Path) -> None:
    """A Jetson has that one, and warns of every key it does not know."""
    newer = (
        r"^(Type=notify-reload|RestartSteps|RestartMaxDelaySec|RestrictFileSystems|OpenFile|MemoryZSwapMax|.*=.*%[dD])"
    )
    assert re.search(newer, unit.read_text(), re.M) is None
