"""Daemons of different releases in one mesh: today's, the one of the last release as it was frozen, and one to come."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from decaf_node.daemon.reports import StatusReport
from tests.daemon.processes import ROOT, Daemon, mesh

pytestmark = pytest.mark.slow

FROZEN = ROOT / "tests" / "frozen" / "decaf_node.zip"
VERSIONS = "VERSION, OLDEST_VERSION = 1, 1 "


def run_code_of(node: Daemon, place: Path) -> Daemon:
    """Have the node and its trainer import decaf_node from there."""
    node.environ = {"PYTHONPATH": f"{place}:{ROOT}"}
    return node


def later_release(folder: Path, newest: int, oldest: int) -> Path:
    """Return a place with a decaf_node that speaks these versions of the protocol."""
    package = shutil.copytree(ROOT / "decaf_node", folder / "decaf_node", ignore=shutil.ignore_patterns("__pycache__"))
    wire = package / "daemon" / "wire.py"
    code = wire.read_text()
    assert code.count(VERSIONS) == 1
    wire.write_text(code.replace(VERSIONS, f"VERSION, OLDEST_VERSION = {newest}, {oldest} "))
    return folder


def mixed_since(before: StatusReport, node: Daemon) -> StatusReport:
    """Wait until the node has mixed again, and has both of its neighbours."""
    return node.until(lambda status: status.mixes > before.mixes and status.degree == 2)


def test_a_mesh_is_upgraded_node_by_node_and_never_stops_mixing() -> None:
    with mesh() as make:
        a = run_code_of(make("a"), FROZEN).start()
        b = run_code_of(make("b", a), FROZEN).start()
        c = run_code_of(make("c", a, b), FROZEN).start()
        nodes = (a, b, c)
        for node in nodes:
            node.until(lambda status: status.mixes >= 2 and status.degree == 2)
            assert f"decaf_node of {FROZEN}" in node.log()
        for node in nodes:
            before = node.status()
            node.client().leave()
            assert node.wait() == 0
            node.configure({"mesh": {"peers": [other.address() for other in nodes if other is not node]}})
            run_code_of(node, ROOT).start()
            now = mixed_since(before, node)
            assert now.node == before.node
            assert now.round >= before.round
            assert node.log().count("decaf_node of") == 1, "this time it is today's"
            for each in nodes:
                mixed_since(each.status(), each)
        for node in nodes:
            assert "other-version" not in node.log()
        assert "speaks version" not in node.log()


def test_a_newer_release_that_still_speaks_our_version_mixes(tmp_path: Path) -> None:
    with mesh() as make:
        frozen = run_code_of(make("frozen"), FROZEN).start()
        ours = make("ours", frozen).start()
        newer = run_code_of(make("newer", frozen, ours), later_release(tmp_path, newest=2, oldest=1)).start()
        for node in (frozen, ours, newer):
            node.until(lambda status: status.mixes >= 2 and status.degree == 2)


def test_a_release_that_speaks_our_version_no_more_is_told_so_and_nothing_breaks(tmp_path: Path) -> None:
    with mesh() as make:
        ours = make("ours").start()
        later = run_code_of(make("later", ours), later_release(tmp_path, newest=3, oldest=2)).start()
        said = "speaks version 1 of the protocol and later speaks versions 2 to 3; update the older one."
        ours.says(said)
        later.says(said)
        rounds = ours.status().round
        ours.until(lambda status: status.round > rounds + 1)
        assert ours.status().mixes == later.status().mixes == 0
