"""What members say of their training: losses, and how frequent labels are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import floats, lists

from decaf_node.daemon.host import Me
from decaf_node.daemon.said import Said, agreed, mean_parts
from decaf_node.daemon.wire import Introduction

OURS, OTHER = "a" * 64, "b" * 64


def who(node: str, loss: float | None = None, *parts: float, schema: str = OURS) -> Introduction:
    return Introduction(node, node, "lab", schema, 1, "", loss=loss, label_parts=parts)


def test_the_last_word_counts_and_silence_is_one() -> None:
    told = Said(10)
    assert told.loss_of("A") is None
    told.heard(who("A", 0.5))
    told.heard(who("A", 0.25))
    assert told.loss_of("A") == 0.25
    told.heard(who("A", None))
    assert told.loss_of("A") is None


def test_who_loads_its_model_has_said_nothing_new() -> None:
    told = Said(10)
    told.heard(who("A", None, schema=""))
    told.heard(who("A", 0.5, 0.75, 0.25))
    told.heard(who("A", None, schema=""))
    assert told.loss_of("A") == 0.5
    assert told.labels(who("US"), (0.75, 0.25)) == (0.75, 0.25)
    told.heard(who("A"))
    assert told.loss_of("A") is None


def test_only_so_many_are_remembered() -> None:
    told = Said(2)
    for node in ("A", "B", "A", "C"):
        told.heard(who(node, 0.5))
    assert [told.loss_of(node) for node in "ABC"] == [0.5, None, 0.5]


def test_what_is_private_is_introduced_only_if_it_is_shared() -> None:
    me = Me("A", "a", "lab", loss=0.5, label_parts=(0.5, 0.5))
    assert (me.introduction().loss, me.introduction().label_parts) == (None, ())
    me.shares_loss = True
    assert (me.introduction().loss, me.introduction().label_parts) == (0.5, ())
    me.shares_labels = True
    assert me.introduction().label_parts == (0.5, 0.5)


def test_labels_in_the_mesh_are_those_of_who_learns_the_same() -> None:
    told, us, own = Said(10), who("US"), (0.75, 0.25)
    assert told.labels(us, own) == (), "nobody else is there"
    assert told.labels(us, ()) == (), "no labels are weighed here"
    told.heard(who("A", None, *own))
    told.heard(who("US", None, 0.5, 0.5))  # a static address may be our own
    told.heard(who("B", None, 0.0, 1.0, schema=OTHER))
    assert told.labels(us, own) == own
    told.heard(who("A", None, 0.85, 0.15))
    assert told.labels(us, own) == pytest.approx(agreed([own, (0.85, 0.15)], 2))
    told.heard(who("B", None))  # it learns the same now, and does not tell
    assert told.labels(us, own) == pytest.approx(agreed([own, (0.85, 0.15), (0.5, 0.5)], 2))
    told.forget("A")
    told.forget("B")
    assert told.labels(us, own) == (0.5, 0.5), "not what a member said that was put out"


def test_who_tells_nothing_or_something_else_counts_as_alike() -> None:
    assert mean_parts([(0.2, 0.8), (), (1.0,), (0.3, 0.3, 0.4)], 2) == pytest.approx((1.7 / 4, 2.3 / 4))


def test_what_nodes_agree_on_is_theirs_and_what_they_do_not_is_nothing() -> None:
    assert agreed([(0.7, 0.2, 0.1)] * 3, 3) == pytest.approx((0.7, 0.2, 0.1))
    assert agreed([(1.0, 0.0), (0.0, 1.0)], 2) == (0.5, 0.5)
    assert agreed([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)], 3) == pytest.approx([1 / 3] * 3), "the mean is there by chance"
    assert agreed([(0.9, 0.1)], 2) == (0.5, 0.5), "one says nothing of others"
    # far: 2 * 0.2 ** 2; by chance: 4 * 0.1 ** 2 / 2
    assert agreed([(0.8, 0.2), (0.6, 0.4)], 2) == pytest.approx((0.5 + 0.75 * 0.2, 0.5 - 0.75 * 0.2))


@given(lists(lists(floats(0.001, 1), min_size=4, max_size=4), min_size=1, max_size=8))
def test_what_is_agreed_lies_between_all_alike_and_the_mean(drawn: list[list[float]]) -> None:
    told = [[part / sum(own) for part in own] for own in drawn]
    mesh, mean = agreed(told, 4), mean_parts(told, 4)
    assert sum(mesh) == pytest.approx(1.0)
    for part, middle in zip(mesh, mean, strict=True):
        assert min(middle, 0.25) - 1e-9 <= part <= max(middle, 0.25) + 1e-9
