from __future__ import annotations

from dataclasses import replace

import pytest

from decaf_node.daemon.planning.forecast import Choice, Facts, Size, degree, forecast

BYTES = {"float32": 4_000_800, "bfloat16": 2_000_800, "float16": 2_000_800, "int8": 1_000_800, "compact": 370_800}
SIZE = Size(BYTES, 900_000, 100_000, 8)
FACTS = Facts(SIZE, nodes=10, link=1e6, step_seconds=0.5, mix_seconds=2.0)
CHOICE = Choice("ring", "float32", 8, 20, 300.0)


@pytest.mark.parametrize(
    ("topology", "nodes", "neighbours"),
    [
        *(("ring", 2, 1), ("ring", 3, 2), ("ring", 10, 2), ("full", 10, 9), ("torus", 16, 4)),
        *(("exponential", 16, 7), ("exponential", 64, 11), ("one-peer-exponential", 8, 1), ("auto", 8, 7)),
    ],
)
def test_neighbours_are_those_of_the_mesh(topology: str, nodes: int, neighbours: float) -> None:
    assert degree(topology, nodes) == neighbours


def test_a_graph_that_depends_on_names_has_a_mean_degree() -> None:
    assert 5.0 < degree("random-regular", 64) < 6.0
    assert degree("auto", 64) == degree("random-regular", 64)


@pytest.mark.parametrize(
    ("wire", "bytes"), [("float32", 2_200_800), ("bfloat16", 1_100_800), ("int8", 550_800), ("compact", 235_800)]
)
def test_half_the_rank_is_half_the_bytes_of_factors(wire: str, bytes: int) -> None:
    assert SIZE.of(wire, 4) == bytes


def test_a_round_with_and_without_overlap() -> None:
    found = forecast(FACTS, CHOICE)
    assert (found.graph, found.neighbours, found.sent_bytes) == ("ring", 2, 8_001_600)
    assert found.train_seconds == 10.0
    assert found.exchange_seconds == pytest.approx(8.0016)
    assert found.with_overlap_seconds == found.seconds == 12.0
    assert found.without_overlap_seconds == pytest.approx(20.0016)
    assert found.hour_bytes == pytest.approx(2 * 8_001_600 * 300)
    assert found.month_bytes == pytest.approx(2 * 8_001_600 * 300 * 720)
    apart = forecast(replace(FACTS, overlap=False), CHOICE)
    assert apart.seconds == apart.without_overlap_seconds


def test_a_slow_link_is_as_long_as_the_round() -> None:
    found = forecast(replace(FACTS, link=1e5), CHOICE)
    assert found.with_overlap_seconds == pytest.approx(82.016)


def test_rounds_by_seconds_need_no_speed_of_the_device() -> None:
    found = forecast(replace(FACTS, step_seconds=None), replace(CHOICE, steps=0))
    assert (found.train_seconds, found.seconds) == (300.0, 302.0)


def test_what_is_not_known_is_not_guessed() -> None:
    slow = forecast(replace(FACTS, step_seconds=None), CHOICE)
    assert (slow.train_seconds, slow.seconds, slow.hour_bytes) == (None, None, None)
    unlinked = forecast(replace(FACTS, link=None), CHOICE)
    assert (unlinked.exchange_seconds, unlinked.seconds, unlinked.sent_bytes) == (None, None, 8_001_600)
    assert forecast(replace(FACTS, mix_seconds=None), CHOICE).seconds == 10.0


def test_another_rank_changes_the_factors_only() -> None:
    assert SIZE.of("float32", 8) == 4_000_800
    assert SIZE.of("float32", 4) == 4_000_800 - 4 * 450_000
    assert SIZE.of("bfloat16", 16) == 2_000_800 + 2 * 900_000
