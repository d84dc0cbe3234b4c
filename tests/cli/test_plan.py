"""``decaf-node plan``: from settings, from a model alone, and from what a node has seen."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from decaf_node.cli.plan.wish import rate_of
from decaf_node.errors import UsageError
from decaf_node.settings import load_settings
from tests.cli.command import decaf_node
from tests.daemon.processes import mesh
from tests.training.saved_node import saved_node
from tests.training.tiny import make_llama

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node whose rounds of 3 steps took 0.5 s, an exchange 0.25 s for 200,000 bytes, and a mix 0.125 s."""
    folder = tmp_path_factory.mktemp("node")
    saved_node(folder)
    return folder


def planned(node: Path, *arguments: str | Path) -> dict[str, Any]:
    places = ("--config", node / "config.toml", "--state", node / "state", "--runtime", node / "run")
    done = decaf_node("plan", *places, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.slow
def test_what_is_not_given_comes_from_settings_and_history(node: Path) -> None:
    found = planned(node, "--nodes", "10")
    facts = found["facts"]
    assert facts["link"] == pytest.approx(800_000)
    assert facts["step_seconds"] == pytest.approx(0.5 / 3)
    assert (facts["mix_seconds"], facts["nodes"]) == (0.125, 10)
    snapshot = next((node / "runs").glob("*/adapter.safetensors"))
    assert found["now"]["snapshot_bytes"] == snapshot.stat().st_size
    assert found["now"]["train_seconds"] == pytest.approx(0.5)
    capped = node / "capped.toml"
    capped.write_text((node / "config.toml").read_text() + "\n[limits]\nupload_bytes_per_second = 100_000\n")
    assert planned(node, "--nodes", "10", "--config", capped)["facts"]["link"] == 100_000
    given = planned(node, "--nodes", "4", "--graph", "ring", "--rank", "4", "--link", "8kbit", "--step-seconds", "2")
    assert (given["facts"]["link"], given["facts"]["step_seconds"]) == (1000.0, 2.0)
    assert (given["now"]["graph"], given["now"]["neighbours"], given["facts"]["size"]["rank"]) == ("ring", 2, 4)


@pytest.mark.e2e
def test_its_settings_can_be_used_as_they_are(node: Path, tmp_path: Path) -> None:
    found = planned(node, "--nodes", "10", "--skewed", "--link", "1Mbit", "--measure")
    assert found["facts"]["step_seconds"] != pytest.approx(0.5 / 3)
    document = tomllib.loads((node / "config.toml").read_text())
    for section, keys in tomllib.loads(found["settings"]).items():
        document.setdefault(section, {}).update(keys)
    settings = load_settings(node / "config.toml", {}).model_validate(document)
    assert settings.mesh.topology == found["recommended"]["graph"] == "full"
    assert settings.round.steps >= 4
    shown = decaf_node(
        *("plan", "--config", node / "config.toml", "--state", tmp_path, "--runtime", tmp_path / "run"),
        *("--nodes", "3"),
    )
    assert shown.returncode == 0, shown.stderr
    assert "link not known (--link), local step not known (--step-seconds or --measure)" in shown.stdout
    assert '[mesh]\ntopology = "full" ' in shown.stdout


@pytest.mark.e2e
def test_before_there_is_a_node(tmp_path: Path) -> None:
    places = ("--config", tmp_path / "none.toml", "--state", tmp_path, "--runtime", tmp_path)
    model = make_llama(tmp_path / "llama")
    done = decaf_node("plan", *places, "--model", model, "--nodes", "20", "--link", "1Gbit", "--step-seconds", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("20 nodes; an adapter of rank 8 has ")
    unset = decaf_node("plan", *places, "--nodes", "3")
    assert (unset.returncode, "[settings.missing]" in unset.stderr) == (78, True)
    blind = decaf_node("plan", *places, "--model", model, "--nodes", "3", "--measure")
    assert (blind.returncode, "[plan.nothing-to-measure]" in blind.stderr) == (64, True)
    missing = decaf_node("plan", *places, "--model", tmp_path / "nowhere", "--nodes", "3")
    assert (missing.returncode, "[model.missing]" in missing.stderr) == (65, True)
    assert missing.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_running_mesh_is_counted(node: Path) -> None:
    with mesh() as make:
        a = make("a").start()
        b = make("b", a).start()
        b.until(lambda status: status.mixes >= 1)
        a.until(lambda status: status.mixes >= 1)
        places = ("--config", node / "config.toml", "--state", a.state, "--runtime", a.runtime)
        done = decaf_node("plan", *places, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["facts"]["nodes"] == 2


@pytest.mark.slow
def test_what_does_not_fit_is_a_sentence(node: Path, tmp_path: Path) -> None:
    places = ("--config", node / "config.toml", "--state", node / "state", "--runtime", node / "run")
    external = tmp_path / "external.toml"
    text = (node / "config.toml").read_text()
    external.write_text(text.replace("[training]\n", '[training]\ntrainer = "external"\n'))
    for arguments, code, reason in (
        (places, 64, "plan.no-nodes"),
        ((*places, "--nodes", "3", "--link", "fast"), 64, "plan.bad-link"),
        ((*places, "--nodes", "3", "--graph", "star"), 64, "plan.unknown-graph"),
        ((*places, "--nodes", "1"), 64, "usage.bad-command-line"),
        ((*places, "--nodes", "3", "--step-seconds", "inf"), 64, "usage.bad-command-line"),
        ((*places, "--config", external, "--nodes", "3", "--measure"), 77, "plan.external-trainer"),
    ):
        done = decaf_node("plan", *arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert done.stderr.endswith(f"[{reason}]\n")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "rate"),
    [("8bit", 1), ("100Mbit", 12.5e6), ("1.5 Gbit/s", 187.5e6), ("2MB", 2e6), ("10kB/s", 1e4), ("9600bit", 1200)],
)
def test_speeds_of_links(text: str, rate: float) -> None:
    assert rate_of(text) == rate


@pytest.mark.parametrize(
    "text", ["", "100", "fast", "0Mbit", "-1Mbit", "1Tbit", "100mbit", "1e3bit", "100MBit", f"{10**400}bit"]
)
def test_what_is_no_speed(text: str) -> None:
    with pytest.raises(UsageError, match="100Mbit"):
        rate_of(text)
