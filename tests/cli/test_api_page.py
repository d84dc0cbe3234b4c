"""docs/api.md: its examples run as they stand, against a founder and a member: Python, buf curl, a shell script.

Those for ``buf curl`` show that a client of somebody else's, which knows nothing but reflection, can call every method.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decaf_node.v1 import control_pb2, monitor_pb2
from tests.cli.command import PROGRAM
from tests.cli.test_membership import founded, joined
from tests.daemon.processes import Daemon, mesh

ROOT = Path(__file__).parents[2]
BUF = ROOT / ".buf" / "node_modules" / ".bin"
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
        instance = a.status().instance
        exec(compile(blocks("python"), "docs/api.md", "exec"), names)
        assert names["instance"] == instance
        names["channel"].close()
        assert a.wait() == 0  # the last example


def documents(text: str) -> Iterator[Any]:
    """Yield the JSON documents in ``text``, one after the other; the last may be cut off."""
    rest, decoder = text.lstrip(), json.JSONDecoder()
    while rest:
        document, end = decoder.raw_decode(rest)
        yield document
        rest = rest[end:].lstrip()


def asked(script: str) -> str:
    """Return what of it asks for one thing, without the watch, whose output is cut off."""
    return "\n".join(line for line in script.splitlines() if "Monitor/Watch" not in line)


@pytest.mark.slow
def test_the_examples_for_buf_curl_run() -> None:
    assert (BUF / "buf").exists(), "run `make .buf/installed`"
    with mesh() as make:
        a, node = a_mesh_of_two(make)

        def bash(script: str) -> str:
            environ = os.environ | {"RUNTIME": str(a.runtime), "NODE": node, "PATH": f"{BUF}:{os.environ['PATH']}"}
            done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, timeout=120, env=environ)
            assert (done.returncode, done.stderr) == (0, "")
            return done.stdout

        examples = blocks("bash")
        definition, watch = examples[: examples.index("}\n") + 2], "ask decaf_node.v1.Monitor/Watch | head -n 20"
        assert watch in examples
        assert '"status"' in bash(definition + watch)
        listed = bash(
            f'buf curl --list-methods --protocol grpc --http2-prior-knowledge --unix-socket "{a.runtime}/control.sock" http://localhost'
        )
        assert {"decaf_node.v1.Monitor/GetTopology", "decaf_node.v1.Control/Leave", "grpc.health.v1.Health/Check"} <= {
            *listed.split()
        }
        answers = list(documents(bash(asked(examples))))
        assert len(answers) == examples.count("\nask ") - 1
        fields = {key for answer in answers for key in answer}
        assert {
            "members",
            "links",
            "accuracy",
            "folder",
            "sentence",
            "token",
            "authority",
            "savedRound",
            "status",
        } <= fields
        assert a.wait() == 0


@pytest.mark.slow
def test_the_examples_for_a_shell_script_run(tmp_path: Path) -> None:
    with mesh() as make:
        a, node = a_mesh_of_two(make)
        places = f"--state {a.state} --runtime {a.runtime} --config {a.config}"
        command = f'decaf-node() {{ {" ".join(PROGRAM)} "$@" {places}; }}\n'
        done = subprocess.run(
            ["bash", "-ec", command + blocks("sh")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"PYTHONPATH": str(ROOT), "NODE": node},
        )
        assert (done.returncode, done.stderr) == (0, "")
