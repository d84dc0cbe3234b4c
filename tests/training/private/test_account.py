"""What is spent is never forgotten once somebody may have seen it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decaf_node.errors import BadData, BadSettings, TryAgain
from decaf_node.training.private.account import Account, Terms
from decaf_node.training.private.spending import epsilon_of, steps_left

TERMS = Terms(epsilon=2.0, delta=1e-5, noise=2.0, rate=0.2)


def test_steps_are_counted_down_to_the_last(tmp_path: Path) -> None:
    account = Account(tmp_path / "privacy.json", TERMS)
    planned = account.left
    assert planned == steps_left({}, 2.0, 1e-5, 2.0, 0.2) > 0
    assert [account.take() for _ in range(planned + 2)] == [True] * planned + [False, False]
    assert (account.steps, account.left, account.is_spent) == (planned, 0, True)
    said = account.report()
    assert said.spent == epsilon_of({(2.0, 0.2): planned}, 1e-5) <= 2.0
    assert (said.epsilon, said.delta, said.steps, said.left, said.noise) == (2.0, 1e-5, planned, 0, 2.0)


def test_a_restart_goes_on_where_it_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "privacy.json"
    one = Account(path, TERMS)
    whole = one.left
    for _ in range(5):
        one.take()
    one.keep()
    one.take()  # nobody has seen it: the process ends before it is kept
    two = Account(path, TERMS)
    assert (two.steps, two.left) == (5, whole - 5)


def test_other_terms_go_on_from_what_is_spent(tmp_path: Path) -> None:
    path = tmp_path / "privacy.json"
    one = Account(path, TERMS)
    for _ in range(5):
        one.take()
    one.keep()
    other = Terms(epsilon=2.0, delta=1e-5, noise=1.5, rate=0.1)
    two = Account(path, other)
    assert two.left == steps_left({(2.0, 0.2): 5}, 2.0, 1e-5, 1.5, 0.1)
    two.take()
    two.keep()
    assert Account(path, TERMS).report().spent == epsilon_of({(2.0, 0.2): 5, (1.5, 0.1): 1}, 1e-5)
    less = Account(path, Terms(epsilon=0.01, delta=1e-5, noise=2.0, rate=0.2))
    assert less.is_spent


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["step", "keep", "crash"]), max_size=30))
def test_any_crash_forgets_only_what_was_not_kept(tmp_path: Path, acts: list[str]) -> None:
    path = tmp_path / "privacy.json"
    path.unlink(missing_ok=True)
    account, taken, kept = Account(path, TERMS), 0, 0
    for act in acts:
        if act == "step":
            taken += account.take()
        elif act == "keep":
            account.keep()
            kept = taken
        else:
            account, taken = Account(path, TERMS), kept
        assert account.steps == taken


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"version": 2, "spent": []}',
        '{"version": 1}',
        '{"version": 1, "spent": [{"noise": 1, "rate": 0.1, "steps": -5}]}',
        '{"version": 1, "spent": [{"noise": 0, "rate": 0.1, "steps": 5}]}',
        '{"version": 1, "spent": [{"noise": 1, "rate": 2, "steps": 5}]}',
        '{"version": 1, "spent": [{"noise": 1, "rate": NaN, "steps": 5}]}',
    ],
)
def test_a_damaged_count_is_not_begun_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "privacy.json"
    path.write_text(content)
    with pytest.raises(BadData) as caught:
        Account(path, TERMS)
    assert caught.value.reason == "privacy.account-damaged"
    assert path.read_text() == content


def test_a_count_that_cannot_be_kept_stops_what_would_leave(tmp_path: Path) -> None:
    account = Account(tmp_path / "gone" / "privacy.json", TERMS)
    account.keep()  # there is nothing to keep
    account.take()
    with pytest.raises(TryAgain) as caught:
        account.keep()
    assert caught.value.reason == "privacy.not-accounted"


def test_what_is_kept_is_whole_and_replaced_at_once(tmp_path: Path) -> None:
    account = Account(tmp_path / "privacy.json", TERMS)
    account.take()
    account.keep()
    assert [path.name for path in tmp_path.iterdir()] == ["privacy.json"]
    document = json.loads((tmp_path / "privacy.json").read_text())
    assert document == {"version": 1, "spent": [{"noise": 2.0, "rate": 0.2, "steps": 1}]}


def test_an_adapter_that_was_trained_without_a_budget_is_refused(tmp_path: Path) -> None:
    account = Account(tmp_path / "privacy.json", TERMS)
    for _ in range(3):
        account.take()
    account.check_covers(3)
    account.check_covers(0)  # a crash went back to an older round: more was spent than it holds
    with pytest.raises(BadSettings) as caught:
        account.check_covers(4)
    assert caught.value.reason == "privacy.trained-without"
