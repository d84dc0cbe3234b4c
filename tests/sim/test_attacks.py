"""Meshes with a liar: what it does to the honest nodes, and what robust mixing leaves of that."""

from __future__ import annotations

import pytest
import torch

from decaf_node.sim.attacks import ATTACKS, HostileWorld
from decaf_node.sim.plan import Plan

pytestmark = pytest.mark.slow

PLAN = Plan(nodes=6, topology="full", rounds=12, payload="least-squares")


def play(attack: str, robust: str, seed: int = 1) -> HostileWorld:
    torch.set_num_threads(1)
    world = HostileWorld(PLAN, seed, next(one for one in ATTACKS if one.name == attack), robust)
    world.run()
    return world


@pytest.fixture(scope="module")
def honest() -> float:
    """The error of a mesh in which nobody lies."""
    return play("none", "clip").errors[-1]


def test_clipping_costs_an_honest_mesh_nothing(honest: float) -> None:
    assert play("none", "off").errors[-1] == honest


def test_noise_wrecks_a_mesh_that_believes_everyone_and_not_one_that_clips(honest: float) -> None:
    assert play("large noise", "off").errors[-1] > 10.0
    assert play("large noise", "clip").errors[-1] < honest + 0.15


def test_a_flipped_sign_is_bounded_by_clipping_and_put_out_by_scoring(honest: float) -> None:
    off, clip, score = (play("sign flip", robust).errors[-1] for robust in ("off", "clip", "score"))
    assert score < clip < off
    assert score < honest + 0.1


def test_flipped_labels_look_honest_and_are_found_out_by_their_harm(honest: float) -> None:
    off, score = (play("flipped labels", robust).errors[-1] for robust in ("off", "score"))
    assert score < off
    assert score < honest + 0.1


@pytest.mark.parametrize("attack", ["not finite", "another model"])
def test_what_cannot_be_mixed_is_mixed_by_nobody(attack: str) -> None:
    """The checks of the simulator watch every mix; nobody takes more than the honest have."""
    world = play(attack, "off")
    liar = next(host for host in world.hosts if world.lies(host))
    taken = [theirs for host in world.hosts if host is not liar for _, theirs in host.trainer.applied]
    assert taken
    assert not any(theirs.startswith(liar.device) for theirs in taken)
