"""Dealing articles out: disjoint, skewed as said, the same for the same seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decaf_node.cli.demo.articles import Article
from decaf_node.cli.demo.shares import deal, holdings, window
from decaf_node.errors import BadData


def pile(**counts: int) -> list[Article]:
    return [Article(f"{label} {number}", label) for label, count in counts.items() for number in range(count)]


FIVE = pile(a=300, b=300, c=300, d=300, e=300)


def test_skewed_shares_hold_two_of_five_topics_and_cover_all() -> None:
    dealt = deal(FIVE, nodes=4, share=60, test=300, iid=False, seed=0)
    assert [holdings(share) for share in dealt.shares] == [
        {"a": 30, "b": 30},
        {"b": 30, "c": 30},
        {"c": 30, "d": 30},
        {"d": 30, "e": 30},
    ]
    assert holdings(dealt.test) == dict.fromkeys("abcde", 60)


def test_iid_shares_hold_all_alike() -> None:
    dealt = deal(FIVE, nodes=4, share=20, test=300, iid=True, seed=0)
    assert [holdings(share) for share in dealt.shares] == [dict.fromkeys("abcde", 4)] * 4


def test_the_seed_decides() -> None:
    def with_seed(seed: int) -> object:
        return deal(FIVE, nodes=4, share=60, test=300, iid=False, seed=seed)

    assert with_seed(1) == with_seed(1)
    assert with_seed(1) != with_seed(2)


@given(
    counts=st.lists(st.integers(40, 90), min_size=2, max_size=12),
    share=st.integers(4, 100),
    iid=st.booleans(),
    seed=st.integers(0, 9),
)
def test_nothing_is_in_two_places_and_everyone_has_something(
    counts: list[int], share: int, iid: bool, seed: int
) -> None:
    articles = pile(**{f"l{number:02}": count for number, count in enumerate(counts)})
    dealt = deal(articles, nodes=4, share=share, test=100, iid=iid, seed=seed)
    given_out = [*dealt.test, *(article for one in dealt.shares for article in one)]
    assert len(given_out) == len(set(given_out))
    assert set(given_out) <= set(articles)
    assert all(dealt.shares)
    assert {article.label for article in dealt.test} == set(dealt.labels)
    assert {article.label for one in dealt.shares for article in one} == set(dealt.labels)


@given(labels=st.integers(2, 60), nodes=st.integers(2, 8))
def test_windows_cover_all_labels(labels: int, nodes: int) -> None:
    names = [str(number) for number in range(labels)]
    assert {label for node in range(nodes) for label in window(names, node, nodes)} == set(names)


def test_one_label_is_refused() -> None:
    with pytest.raises(BadData, match="two or more"):
        deal(pile(a=100), nodes=4, share=10, test=10, iid=False, seed=0)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(BadData, match="6 different texts with 2 labels are too few"):
        deal(pile(a=3, b=3), nodes=4, share=10, test=10, iid=False, seed=0)
