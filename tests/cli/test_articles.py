"""Reading labelled texts, and leaving out duplicates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decaf_node.cli.demo.articles import Article, read_file, read_topics, without_duplicates
from decaf_node.errors import BadData


def test_topics_are_folders(tmp_path: Path) -> None:
    for name, text in (("tech/2.txt", "two"), ("tech/1.txt", "one"), ("sports/1.txt", "goal")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_topics(tmp_path) == [Article("goal", "sports"), Article("one", "tech"), Article("two", "tech")]


def test_a_byte_that_is_not_utf8_costs_only_itself(tmp_path: Path) -> None:
    (tmp_path / "tech").mkdir()
    (tmp_path / "tech/1.txt").write_bytes(b"\xa3 5m")
    assert read_topics(tmp_path) == [Article("\ufffd 5m", "tech")]


def test_duplicates_differ_only_in_case_and_space() -> None:
    articles = [Article("One two", "a"), Article("one  TWO\n", "b"), Article("one two three", "a")]
    assert without_duplicates(articles) == [articles[0], articles[2]]


def test_an_article_sent_out_again_with_corrections_is_a_duplicate() -> None:
    beginning = "Shares fell on Monday after the bank said that profits would be lower. " * 4
    articles = [Article(beginning + "The index lost 2%.", "business"), Article(beginning + "It lost 3%.", "business")]
    assert without_duplicates(articles) == articles[:1]


ROWS = [{"title": "x", "kind": 1}, {"title": "y", "kind": 2}, {"title": "", "kind": 1}, {"title": "z", "kind": None}]


def test_each_kind_of_file_reads_alike(tmp_path: Path) -> None:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    (tmp_path / "a.csv").write_text("title,kind\nx,1\ny,2\n,1\n")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        assert read_file(tmp_path / name, "title", "kind") == [Article("x", "1"), Article("y", "2")]


@pytest.mark.parametrize(
    ("name", "content", "reason", "said"),
    [
        ("none.csv", None, "data.missing", "none.csv"),
        ("a.txt", "x", "data.unreadable", ".txt"),
        ("a.jsonl", "", "data.empty", "a.jsonl"),
        ("a.jsonl", '{"text": "x"}\nnonsense\n', "data.unreadable", "line 2"),
        ("a.jsonl", "[1]\n", "data.unreadable", "line 1"),
        ("a.csv", "\ud800", "data.unreadable", "UTF-8"),
        ("a.jsonl", "\ud800", "data.unreadable", "UTF-8"),
        ("a.csv", "text,kind\nx,1\n", "data.column-missing", "--label-column"),
        ("a.csv", "title,label\nx,1\n", "data.column-missing", "--text-column"),
        ("a.parquet", "no parquet", "data.unreadable", "a.parquet"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, name: str, content: str | None, reason: str, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(BadData) as caught:
        read_file(tmp_path / name, "text", "label")
    assert caught.value.reason == reason
    assert said in caught.value.message
    assert caught.value.message.count("..") == 0
