"""What members say of their training losses."""

from __future__ import annotations

from decaf_node.daemon.host import Me
from decaf_node.daemon.losses import Losses
from decaf_node.daemon.wire import Introduction


def who(node: str, loss: float | None) -> Introduction:
    return Introduction(node, node, "lab", "", 1, "", loss=loss)


def test_the_last_word_counts_and_silence_is_one() -> None:
    losses = Losses(10)
    assert losses.of("A") is None
    losses.heard(who("A", 0.5))
    losses.heard(who("A", 0.25))
    assert losses.of("A") == 0.25
    losses.heard(who("A", None))
    assert losses.of("A") is None


def test_only_so_many_are_remembered() -> None:
    losses = Losses(2)
    for node in ("A", "B", "A", "C"):
        losses.heard(who(node, 0.5))
    assert [losses.of(node) for node in "ABC"] == [0.5, None, 0.5]


def test_a_loss_is_introduced_only_if_it_is_shared() -> None:
    me = Me("A", "a", "lab", loss=0.5)
    assert me.introduction().loss is None
    me.shares_loss = True
    assert me.introduction().loss == 0.5
