"""``decaf-node simulate --ray``: a small campaign on a Ray cluster of this machine. Needs the extra ``ray``."""

from __future__ import annotations

import json

import pytest

from tests.cli.command import decaf_node

pytestmark = pytest.mark.ray

SMALL = ("simulate", "--nodes", "4", "--rounds", "5", "--faults", "mild", "--seeds", "4", "--json")


def test_a_ray_cluster_gives_the_same_trace() -> None:
    here, there = decaf_node(*SMALL, "--jobs", "1"), decaf_node(*SMALL, "--ray", "local")
    assert (here.returncode, there.returncode) == (0, 0), there.stderr
    assert json.loads(here.stdout)["trace"] == json.loads(there.stdout)["trace"]
