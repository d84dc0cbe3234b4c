"""Who holds which examples."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.learning.splits import by_domain, deal, dirichlet, even, exclusive

LABELS = [label for label in range(5) for _ in range(40)]


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 30), min_size=2, max_size=6), st.floats(0.05, 10.0))
def test_no_example_is_dealt_twice_and_everyone_has_as_many_as_asked(seed: int, sizes: list[int], alpha: float) -> None:
    random = np.random.default_rng(seed)
    held = deal(LABELS, sizes, dirichlet([1.0] * 5, len(sizes), alpha, random), random)
    assert [len(share) for share in held] == sizes
    dealt = [example for share in held for example in share]
    assert len(dealt) == len(set(dealt))
    assert set(dealt) <= set(range(len(LABELS)))


def test_the_same_seed_deals_the_same() -> None:
    one, other = (deal(LABELS, [30, 30], even([1.0] * 5, 2), np.random.default_rng(7)) for _ in range(2))
    assert one == other
    assert one != deal(LABELS, [30, 30], even([1.0] * 5, 2), np.random.default_rng(8))


def test_who_is_to_hold_a_label_alone_holds_no_other() -> None:
    held = deal(LABELS, [40] * 5, exclusive(5, 5, 1), np.random.default_rng(0))
    assert [{LABELS[example] for example in share} for share in held] == [{0}, {1}, {2}, {3}, {4}]
    two = deal(LABELS, [20] * 5, exclusive(5, 5, 2), np.random.default_rng(0))
    assert [sorted({LABELS[example] for example in share}) for share in two] == [[0, 1], [1, 2], [2, 3], [3, 4], [0, 4]]


def test_a_domain_is_the_first_word_and_lone_labels_are_one() -> None:
    labels = ["alt.atheism", "comp.graphics", "comp.windows", "misc.forsale", "sci.med", "sci.space"]
    assert by_domain(labels, 4).tolist() == [
        [0.5, 0, 0, 0.5, 0, 0],
        [0, 0.5, 0.5, 0, 0, 0],
        [0, 0, 0, 0, 0.5, 0.5],
        [0.5, 0, 0, 0.5, 0, 0],
    ]
    with pytest.raises(ValueError, match="earn are not of several domains"):
        by_domain(["earn", "acq"], 2)


def test_a_label_that_has_run_out_is_made_up_for() -> None:
    held = deal(LABELS, [60, 60], exclusive(5, 2, 1), np.random.default_rng(0))
    kinds = [Counter(LABELS[example] for example in share) for share in held]
    assert [kind.most_common(1)[0] for kind in kinds] == [(0, 40), (2, 40)]


def test_a_small_alpha_is_skewed_and_a_large_one_is_even() -> None:
    random = np.random.default_rng(0)
    largest = {alpha: dirichlet([1.0] * 10, 200, alpha, random).max(1).mean() for alpha in (0.1, 1.0, 100.0)}
    assert largest[0.1] > 0.5 > largest[1.0] > 0.15 > largest[100.0]


def test_the_prior_counts() -> None:
    random = np.random.default_rng(0)
    assert dirichlet([3.0, 1.0], 2000, 1.0, random).mean(0) == pytest.approx([0.75, 0.25], abs=0.02)


def test_too_few_examples_are_said() -> None:
    with pytest.raises(ValueError, match="201 examples cannot be dealt from 200"):
        deal(LABELS, [201], even([1.0] * 5, 1), np.random.default_rng(0))
