"""Two devices with one identity are told from one that is started again."""

from __future__ import annotations

from decaf_node.daemon.clones import Clone, Clones

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
