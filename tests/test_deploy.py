"""What is in deploy/ for containers and for many machines, as its own tools judge it; what can be run is in tests/e2e/.

Needs Debian's packages ``docker-compose``, ``ansible-core`` and ``ansible-lint``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
OURS = Path(sysconfig.get_path("scripts"))
DOCKERFILES = ("desktop/Dockerfile", "jetson/Dockerfile")
pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path = DEPLOY, **environment: str) -> str:
    if shutil.which(words[0]) is None:
        pytest.skip(f"there is no {words[0]} command")
    environ = os.environ | environment
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environ, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    assert run(OURS / "hadolint", name) == ""


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_nobody_in_particular_and_tells_its_health(name: str) -> None:
    final = (DEPLOY / name).read_text().split("\nFROM ")[-1]
    assert "\nUSER 10001\n" in final
    assert "\nHEALTHCHECK " in final


def test_the_cluster_takes_the_manifests() -> None:
    """Against the schemas of Kubernetes; no unknown key is let pass."""
    assert run(OURS / "kubernetes-validate", "--strict", "--quiet", *DEPLOY.glob("kubernetes/*.yaml")) == ""


def test_the_manifests_say_what_they_promise() -> None:
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes/decaf-node.yaml").read_text()))
    pod = documents[-1]["spec"]["template"]["spec"]
    assert pod["hostNetwork"] is True, "for mDNS"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    (main,) = pod["containers"]
    own = pod["initContainers"][0]
    assert {mount["name"] for mount in own["volumeMounts"]} == {"state", "runtime"}, "Kubernetes makes them root's"
    assert "chmod 700 /run/decaf-node" in own["command"][-1], "the daemon takes no folder that others can write"
    assert {"livenessProbe", "readinessProbe", "startupProbe"} <= main.keys()
    assert {mount["name"] for mount in main["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_compose_reads_the_mesh_of_three() -> None:
    printed = run("docker-compose", "--file", "compose.yaml", "config", MODEL="/srv/model", DATA="/srv/data")
    mesh: dict[str, Any] = yaml.safe_load(printed)["services"]
    assert set(mesh) == {"a", "b", "c", "invitation"}
    for name in ("b", "c"):
        assert mesh[name]["depends_on"] == {"invitation": {"condition": "service_completed_successfully"}}
        assert f"{name}:/var/lib/decaf-node:rw" in mesh[name]["volumes"], "a node has a state of its own"


def test_ansible_lint_has_nothing_to_say() -> None:
    assert run("ansible-lint", "--offline", "-q", cwd=DEPLOY / "ansible") == ""
