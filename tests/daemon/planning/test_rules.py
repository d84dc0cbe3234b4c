"""Each rule, at the place where it turns; the figures are those at the top of rules.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from decaf_node.daemon.planning import rules
from decaf_node.daemon.planning.forecast import Choice, Facts, Size, forecast
from decaf_node.daemon.planning.rules import Recommended, recommend
from decaf_node.mesh.topology import FULL_UP_TO

BYTES = {"float32": 4_000_000, "bfloat16": 2_000_000, "float16": 2_000_000, "int8": 1_000_000, "compact": 300_000}
SIZE = Size(BYTES, 1_000_000, 0, 16)
FAST = Facts(SIZE, nodes=8, link=1e9, step_seconds=0.5, mix_seconds=0.1)
NOW = Choice("auto", "float32", 16, 0, 300.0)


def recommended(facts: Facts, skewed: bool = False, now: Choice = NOW) -> Recommended:
    return recommend(facts, now, wait_ceiling=120.0, skewed=skewed)


def settings(facts: Facts, skewed: bool = False, now: Choice = NOW) -> dict[str, Any]:
    advice = recommended(facts, skewed, now).advice
    assert all(one.reason for one in advice)
    return {f"{one.section}.{one.key}": one.value for one in advice}


def test_few_nodes_on_a_fast_link() -> None:
    assert settings(FAST) == {
        "mesh.topology": "full",
        "mixing.wire": "float32",
        "lora.r": 16,
        "round.seconds": rules.LEAST_STEPS * 0.5,
    }


@pytest.mark.parametrize(
    ("nodes", "skewed", "topology"),
    [
        (FULL_UP_TO, False, "full"),
        (FULL_UP_TO + 1, False, "random-regular"),
        (FULL_UP_TO + 1, True, "full"),
        (rules.SKEWED_FULL_UP_TO, True, "full"),
        (rules.SKEWED_FULL_UP_TO + 1, True, "exponential"),
    ],
)
def test_the_graph(nodes: int, skewed: bool, topology: str) -> None:
    assert settings(replace(FAST, nodes=nodes), skewed)["mesh.topology"] == topology


def test_a_full_graph_must_fit_the_link() -> None:
    longest = 7 * 300_000 / rules.LONGEST_EXCHANGE
    assert settings(replace(FAST, link=longest * 1.01))["mesh.topology"] == "full"
    assert settings(replace(FAST, link=longest * 0.99))["mesh.topology"] == "random-regular"
    assert settings(replace(FAST, nodes=2, link=1.0))["mesh.topology"] == "full", "no graph has fewer neighbours"


def test_skewed_data_is_exchanged_more_often() -> None:
    assert settings(FAST, skewed=True)["round.seconds"] == rules.SKEWED_LEAST_STEPS * 0.5


@pytest.mark.parametrize("skewed", [False, True])
def test_a_round_of_a_fast_device_is_not_over_at_once(skewed: bool) -> None:
    fast = replace(FAST, step_seconds=0.001, mix_seconds=None)
    found = settings(fast, skewed)
    assert (found["round.seconds"], found["mixing.wire"]) == (rules.LEAST_SECONDS, "float32")
    assert settings(fast, skewed, replace(NOW, steps=7))["round.steps"] == rules.LEAST_SECONDS / 0.001


@pytest.mark.parametrize(("overlap", "share"), [(True, rules.OVERLAPPED), (False, rules.APART)])
def test_the_exchange_is_a_bounded_part_of_a_round(overlap: bool, share: float) -> None:
    facts = replace(FAST, overlap=overlap, link=1.5e5)
    found = recommended(facts)
    ahead = forecast(facts, found.choice)
    assert found.choice.wire == "compact"
    assert ahead.exchange_seconds == 14.0
    assert ahead.train_seconds is not None
    assert 14.1 / share <= ahead.train_seconds <= 14.1 / share + 1.0


def test_the_finest_wire_with_which_the_link_does_not_lengthen_the_round() -> None:
    fitting = 7 * 4_000_000 / (rules.LEAST_STEPS * 0.5 * rules.OVERLAPPED - 0.1)
    assert settings(replace(FAST, link=fitting * 1.01))["mixing.wire"] == "float32"
    assert settings(replace(FAST, link=fitting * 0.99))["mixing.wire"] == "int8"
    assert settings(replace(FAST, link=fitting * 0.251))["mixing.wire"] == "int8"
    for part in (0.249, 0.01):  # of all, the last where none is enough
        assert settings(replace(FAST, link=fitting * part))["mixing.wire"] == "compact"
    exact_a = replace(FAST, wires=("float32", "bfloat16"))
    for part in (0.99, 0.01):
        assert settings(replace(exact_a, link=fitting * part))["mixing.wire"] == "bfloat16"


def test_a_rank_that_the_link_cannot_carry_is_halved() -> None:
    sparse = replace(FAST, nodes=2, link=300_000 / rules.LONGEST_EXCHANGE)
    assert settings(sparse)["lora.r"] == 16
    assert settings(replace(sparse, link=sparse.link * 0.9))["lora.r"] == 8  # type: ignore[operator]
    assert settings(replace(sparse, link=1.0))["lora.r"] == rules.LEAST_RANK


def test_neighbours_are_waited_for_as_long_as_an_exchange_takes() -> None:
    slow = settings(replace(FAST, nodes=2, link=300_000 / 100))
    assert slow["round.wait_ceiling"] == 200
    assert "round.wait_ceiling" not in settings(replace(FAST, nodes=2, link=300_000 / 50))


def test_rounds_by_steps_stay_so() -> None:
    found = recommended(FAST, now=replace(NOW, steps=7))
    assert found.choice.steps == rules.LEAST_STEPS
    assert found.advice[-1].key == "steps"


def test_without_speeds_nothing_is_made_up() -> None:
    blind = settings(replace(FAST, link=None, step_seconds=None, mix_seconds=None))
    assert blind == {"mesh.topology": "full", "mixing.wire": "float32", "lora.r": 16}
    rounded = replace(NOW, wire="bfloat16")
    assert settings(replace(FAST, link=None), now=rounded)["mixing.wire"] == "bfloat16"
    assert settings(replace(FAST, link=None))["round.seconds"] == rules.LEAST_STEPS * 0.5
