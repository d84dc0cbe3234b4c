"""A short run over every parser; ``python -m benchmarks.fuzz`` is the long one, with the same parsers and changes."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from decaf_node.errors import BadData
from tests.fuzz.mutate import SIZE_LIMIT, mutate
from tests.fuzz.parsers import PARSERS, Parser, survives

EACH = pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)


@EACH
def test_good_input_is_taken(parser: Parser) -> None:
    assert survives(parser, parser.seeds[0])


@EACH
def test_what_was_found_is_mended(parser: Parser) -> None:
    for seed in parser.seeds:
        survives(parser, seed)


@EACH
@settings(max_examples=250)
@given(number=st.integers(0, 2**64))
def test_damaged_input_is_taken_or_refused(parser: Parser, number: int) -> None:
    survives(parser, mutate(parser.seeds, Random(number)))


@EACH
@settings(max_examples=50)
@given(data=st.binary(max_size=500))
def test_bytes_are_taken_or_refused(parser: Parser, data: bytes) -> None:
    survives(parser, data)


def test_damage_is_a_function_of_its_seed_and_bounded() -> None:
    seeds = PARSERS[0].seeds
    made = [mutate(seeds, Random(number)) for number in range(200)]
    assert made == [mutate(seeds, Random(number)) for number in range(200)]
    assert max(map(len, made)) <= SIZE_LIMIT
    assert len(set(made)) > 150


def careless(data: bytes) -> None:
    if not data:
        raise BadData("test.empty", "There is nothing.")
    int(data.decode())


def test_a_crash_is_found_and_its_input_told() -> None:
    planted = Parser("planted", careless, (b"12", b""))
    outcome = fuzz.run((planted, PARSERS[0]), 600, seed=1)
    assert [row.inputs for row in outcome.rows] == [400, 200]
    assert 0 < outcome.rows[0].crashes < 400
    assert outcome.rows[1].crashes == 0
    assert outcome.crashes[0]["parser"] == "planted"
    with pytest.raises(ValueError):  # noqa: PT011 - whichever it was
        careless(bytes.fromhex(outcome.crashes[0]["input"]))
