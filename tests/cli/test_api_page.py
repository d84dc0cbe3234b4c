"""docs/api.md: its examples for Python and for a shell script run as they stand, against a founder and a member."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest

from decaf_node.v1 import control_pb2, monitor_pb2
from tests.cli.command import PROGRAM
from tests.cli.test_membership import founded, joined
from tests.daemon.processes import Daemon, mesh

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def blocks(language: str) -> str:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", PAGE, re.M | re.S)
    return "\n".join(textwrap.dedent(block) for block in found)


@pytest.mark.parametrize("language", ["python", "bash"])
def test_every_method_has_an_example(language: str) -> None:
    services = (monitor_pb2.DESCRIPTOR.services_by_name["Monitor"], control_pb2.DESCRIPTOR.services_by_name["Control"])
    for method in (method.name for service in services for method in service.methods):
        assert re.search(rf"[./]{method}\b", blocks(language)), method


def a_mesh_of_two(make: Any) -> tuple[Daemon, str]:
    a = founded(make)
    b = joined(make, "b", a)
    node = b.until(lambda status: status.mixes >= 1).node
    a.until(lambda status: status.mixes >= 1)
    return a, node


@pytest.mark.slow
def test_the_examples_for_python_run() -> None:
    with mesh() as make:
        a, node = a_mesh_of_two(make)
        names: dict[str, Any] = {"RUNTIME": str(a.runtime), "NODE": node}
        exec(compile(blocks("python"), "docs/api.md", "exec"), names)
        assert names["instance"] == a.status().instance
        names["channel"].close()


@pytest.mark.slow
def test_the_examples_for_a_shell_script_run() -> None:
    with mesh() as make:
        a, node = a_mesh_of_two(make)
        places = f"--state {a.state} --runtime {a.runtime} --config {a.config}"
        command = f'decaf-node() {{ {" ".join(PROGRAM)} "$@" {places}; }}\n'
        done = subprocess.run(
            ["bash", "-ec", command + blocks("sh")],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"PYTHONPATH": str(ROOT), "NODE": node},
        )
        assert (done.returncode, done.stderr) == (0, "")
