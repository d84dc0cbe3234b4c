"""Two devices with one identity are told from one that is started again."""

from __future__ import annotations

from typing import cast

from decaf_node.daemon.channels import Way
from decaf_node.daemon.clones import FORGET_SECONDS, Clone, Clones
from decaf_node.daemon.dial import Answer
from decaf_node.daemon.host import Me
from decaf_node.daemon.problems import Problems
from decaf_node.daemon.security import Plaintext
from decaf_node.daemon.trust import Open
from decaf_node.daemon.upkeep import Upkeep
from decaf_node.daemon.wire import Introduction
from decaf_node.mesh.rumours import NO_NEWS

NODE = "A" * 52
ONE, TWO, THREE = "1" * 16, "2" * 16, "3" * 16


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_restart_is_no_clone() -> None:
    clones = Clones()
    for instance in (ONE, ONE, TWO, TWO, THREE):
        assert clones.heard(NODE, instance, "10.0.0.1:1") is None


def test_two_that_alternate_are_clones_and_everyone_prefers_the_same() -> None:
    clones = Clones()
    assert clones.heard(NODE, TWO, "10.0.0.2:1") is None
    assert clones.heard(NODE, ONE, "10.0.0.1:1") is None
    assert clones.heard(NODE, TWO, "10.0.0.2:2") == Clone("10.0.0.1:1", first=False)
    assert clones.heard(NODE, ONE, "10.0.0.1:2") == Clone("10.0.0.2:2", first=True)
    assert clones.heard("B" * 52, ONE, "10.0.0.1:3") is None


def test_it_is_over_when_one_is_heard_no_more() -> None:
    clock = Clock()
    clones = Clones(clock)
    for instance in (ONE, TWO, ONE):
        clones.heard(NODE, instance, "10.0.0.1:1")
    clock.now = 121.0
    assert clones.heard(NODE, ONE, "10.0.0.1:1") is None


def test_what_is_remembered_has_a_limit() -> None:
    clones = Clones()
    for number in range(3000):
        clones.heard(f"{number}", ONE, "10.0.0.1:1")
        clones.heard(NODE, f"{number:016d}", "10.0.0.1:1")
    assert len(clones._nodes) <= 1024
    assert len(clones._nodes[NODE]) <= 4


async def test_our_own_clone_is_said_for_as_long_as_we_meet_it_or_somebody_tells_of_it() -> None:
    clock, problems, me = Clock(), Problems(), Me(NODE, "a", "lab")
    upkeep = Upkeep(me, Open(NODE, Plaintext()), problems, lambda _: None, clock)

    async def met(node: str, clone: str = "") -> None:
        who = Introduction(node, "b", "lab", "", 1, "10.0.0.2:1", instance=ONE)
        await upkeep.met("10.0.0.2:1", cast(Way, None), Answer(who, NO_NEWS, clone))

    await met(NODE)
    clock.now += FORGET_SECONDS / 2
    await met("B" * 52)
    assert "10.0.0.2" in problems.by_place()["identity"].sentence, "one who has not met it proves nothing"
    clock.now += FORGET_SECONDS
    await met("C" * 52, clone="10.0.0.2:9")
    await met("B" * 52)
    assert "identity" in problems.by_place(), "C has told of it just now"
    clock.now += FORGET_SECONDS
    await met("B" * 52)
    assert "identity" not in problems.by_place()


def test_a_peer_of_which_neither_device_is_heard_any_more_is_no_trouble() -> None:
    clock, problems = Clock(), Problems()
    upkeep = Upkeep(Me(NODE, "a", "lab"), Open(NODE, Plaintext()), problems, lambda _: None, clock)
    for instance in (ONE, TWO, ONE, TWO):
        upkeep.heard(Introduction("B" * 52, "b", "lab", "", 1, "", instance=instance), f"10.0.0.{instance[0]}:1")
    place = "clone " + "B" * 52
    assert problems.by_place()[place].id == "identity.cloned"
    clock.now += FORGET_SECONDS - 1
    upkeep.forget()
    assert place in problems.by_place()
    clock.now += 2
    upkeep.forget()
    assert place not in problems.by_place()
