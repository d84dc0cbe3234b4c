from __future__ import annotations

import math
import random
from fractions import Fraction
from statistics import NormalDist, mean, stdev

import pytest

from decaf_node.training.paired import compare_answers, compare_losses, mcnemar


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (5, 0), (9, 2), (7, 7), (30, 12), (300, 340)])
def test_mcnemar_is_the_exact_binomial_test(won: int, lost: int) -> None:
    coins = won + lost
    tail = sum(math.comb(coins, heads) for heads in range(min(won, lost) + 1))
    assert mcnemar(won, lost) == pytest.approx(min(1.0, float(2 * Fraction(tail, 2**coins))), rel=1e-9)
    assert mcnemar(won, lost) == mcnemar(lost, won)


def test_many_answers_do_not_overflow() -> None:
    assert mcnemar(50_200, 49_800) == pytest.approx(2 * NormalDist().cdf(-399 / math.sqrt(100_000)), rel=1e-3)
    assert mcnemar(100_000, 1) < 1e-300


def test_only_answers_on_which_two_models_differ_tell_anything() -> None:
    ours = [True] * 6 + [False] * 1 + [True] * 93
    theirs = [False] * 6 + [True] * 1 + [True] * 93
    found = compare_answers(ours, theirs)
    assert (found.won, found.lost) == (6, 1)
    assert found.accuracy == pytest.approx(0.05)
    differences = [our - their for our, their in zip(ours, theirs, strict=True)]
    assert found.error == pytest.approx(stdev(differences) / 10, rel=0.01)  # the population's, not the sample's
    assert found.p == pytest.approx(0.125)
    assert found.is_noise
    assert not compare_answers([True] * 6 + [False], [False] * 7).is_noise


def test_equal_models_are_noise() -> None:
    same = compare_answers([True, False], [True, False])
    assert (same.accuracy, same.error, same.p, same.is_noise) == (0.0, 0.0, 1.0, True)
    assert compare_losses([1.0, 2.0], [1.0, 2.0], [1.0, 1.0]).is_noise


def test_a_loss_an_example_has_the_error_of_a_paired_difference() -> None:
    ours, theirs = [0.1, 0.4, 0.2, 0.9], [0.3, 0.5, 0.1, 1.4]
    differences = [our - their for our, their in zip(ours, theirs, strict=True)]
    found = compare_losses(ours, theirs, [1.0] * 4)
    assert found.loss == pytest.approx(mean(differences))
    assert found.error == pytest.approx(stdev(differences) / 2)
    assert found.is_noise


def test_a_loss_a_token_has_the_error_that_resampling_gives() -> None:
    drawn = random.Random(1)
    tokens = [float(drawn.randint(5, 60)) for _ in range(400)]
    theirs = [2.0 * count + drawn.gauss(0, 4) for count in tokens]
    ours = [loss - 0.1 * count + drawn.gauss(0, 3) for loss, count in zip(theirs, tokens, strict=True)]
    found = compare_losses(ours, theirs, tokens)
    resampled = []
    for _ in range(500):
        rows = drawn.choices(range(400), k=400)
        resampled.append(sum(ours[row] - theirs[row] for row in rows) / sum(tokens[row] for row in rows))
    assert found.error == pytest.approx(stdev(resampled), rel=0.1)
    assert not found.is_noise


def test_one_example_proves_nothing() -> None:
    assert compare_losses([1.0], [9.0], [1.0]).is_noise
    assert compare_answers([True], [False]).is_noise


def test_a_loss_that_is_no_number_proves_nothing() -> None:
    assert compare_losses([math.nan, 1.0], [1.0, 1.0], [1.0, 1.0]).is_noise
