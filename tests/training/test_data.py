from __future__ import annotations

import itertools
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from decaf_node.errors import BadData
from decaf_node.settings import Settings
from decaf_node.training.data import Data, Position, Rows, load_data, read_table, unquoted
from tests.training.tiny import classifier_settings, make_tokenizer, topic_rows, write_rows


def settings(path: Path, **data: Any) -> Settings:
    return classifier_settings(path, path, data={"evaluation_fraction": 0.0, **data})


def load(path: Path, **data: Any) -> Data:
    given = settings(path, **data)
    return load_data(given, Rows(given, make_tokenizer()))


def texts(examples: Any) -> list[str]:
    tokenizer = make_tokenizer()
    return [str(tokenizer.decode(example.tokens)) for example in examples]


def reason_of(path: Path, **data: Any) -> str:
    with pytest.raises(BadData) as caught:
        load(path, **data)
    assert path.name in caught.value.message
    return caught.value.reason


def epoch(data: Data) -> list[str]:
    return texts(itertools.islice(iter(data.stream), len(data.stream.examples)))


def touched(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write new rows, with a time that is surely another."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    write_rows(path, rows)
    os.utime(path, ns=(before + 10**9, before + 10**9))


ROWS = [{"text": text, "label": "tech"} for text in ("the cat", "a dog", "mat road")]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    table = Dataset.from_list(ROWS)
    {".csv": table.to_csv, ".parquet": table.to_parquet}.get(suffix, table.to_json)(path)
    assert sorted(texts(load(path).stream.examples)) == sorted(row["text"] for row in ROWS)


def test_a_text_that_looks_like_nothing_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nNA,tech\nnull,tech\n")
    assert [row["text"] for row in read_table(path)] == ["NA", "null"]


def test_nothing_of_the_data_stays_in_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    load(path)
    assert list(tmp_path.iterdir()) == [path]


def test_no_file(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "none.jsonl") == "data.missing"


def test_a_pattern_without_files(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "*.jsonl") == "data.missing"


def test_a_format_that_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    path.write_bytes(b"x")
    assert reason_of(path) == "data.unknown-format"


@pytest.mark.parametrize(
    ("suffix", "content"), [("jsonl", b'{"text": '), ("parquet", b"PAR1nonsense"), ("csv", b"\xff\xfe")]
)
def test_a_file_that_cannot_be_parsed(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(content)
    assert reason_of(path) == "data.unreadable"


def test_a_folder_is_no_data_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    assert reason_of(tmp_path / "rows.jsonl") == "data.unreadable"


@pytest.mark.parametrize("content", ["", '{"text": "", "label": "tech"}\n'])
def test_nothing_to_learn_from(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    assert reason_of(path) == "data.empty"


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"body": "the cat", "topic": "tech"}])
    with pytest.raises(BadData, match="no column text; it has body, topic") as caught:
        load(path)
    assert caught.value.reason == "data.column-missing"


def test_an_unknown_label_names_the_file(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "rows.jsonl", [{"text": "cat", "label": "tech"}] * 1500 + [{"text": "cat", "label": "no"}]
    )
    with pytest.raises(BadData, match=r"rows.jsonl, row 1501: Column label ") as caught:
        load(path)
    assert caught.value.reason == "data.unknown-label"


@pytest.mark.parametrize(
    ("says", "shown"),
    [
        ("could not convert string to float: 'it's mine'", "could not convert string to float: (...)"),
        ("Could not convert b'mine' with type bytes: tried int", "Could not convert b(...) with type bytes: tried int"),
        ("'utf-8' codec can't decode byte 0xff in position 0", "(...) codec can't decode byte 0xff in position 0"),
        ("Failed to parse string: 'a row that is cut", "Failed to parse string: (...)"),
        ("JSON parse error: Invalid value. in row 1.", "JSON parse error: Invalid value. in row 1."),
    ],
)
def test_what_a_library_quotes_is_left_out(says: str, shown: str) -> None:
    assert unquoted(says) == shown


def test_a_csv_file_without_a_header_does_not_show_its_first_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a private text,tech\nanother,sport\n")
    with pytest.raises(BadData, match="has no column text") as caught:
        load(path)
    assert "private" not in caught.value.message


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"body": "the cat", "topic": "tech", "text": "dog"}])
    assert texts(load(path, text_column="body", label_column="topic").stream.examples) == ["the cat"]


def test_the_held_out_part_stays_held_out_when_the_file_grows(tmp_path: Path) -> None:
    rows = topic_rows(20)
    path = write_rows(tmp_path / "rows.jsonl", rows[:30])
    before = load(path, evaluation_fraction=0.3)
    write_rows(path, [*rows[30:], *rows[:30]])
    after = load(path, evaluation_fraction=0.3)
    assert 3 <= len(before.evaluation) <= 15
    assert set(texts(before.evaluation)) <= set(texts(after.evaluation))
    assert not set(texts(after.evaluation)) & set(texts(after.stream.examples))
    assert len(after.evaluation) + len(after.stream.examples) == 60


def test_evaluation_files_are_used_whole(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", topic_rows())
    held_out = write_rows(tmp_path / "held.jsonl", ROWS)
    data = load(path, evaluation=[held_out], evaluation_fraction=0.5)
    assert sorted(texts(data.evaluation)) == sorted(row["text"] for row in ROWS)
    assert len(data.stream.examples) == len(topic_rows())


def test_each_epoch_has_every_example_in_an_order_of_its_own(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", topic_rows())
    data, count = load(path), len(topic_rows())
    stream = iter(data.stream)
    one, two = (texts(itertools.islice(stream, count)) for _ in range(2))
    assert sorted(one) == sorted(two)
    assert one != two
    assert one == epoch(load(path))


def test_the_order_follows_the_seed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", topic_rows())
    orders = []
    for seed in (0, 1):
        given = classifier_settings(path, path, data={"evaluation_fraction": 0.0}, training={"seed": seed})
        orders.append(epoch(load_data(given, Rows(given, make_tokenizer()))))
    assert orders[0] != orders[1]


@pytest.mark.slow
@pytest.mark.parametrize("used", [0, 1, 23, 24, 25, 60])
def test_a_stream_goes_on_where_another_was(tmp_path: Path, used: int) -> None:
    path = write_rows(tmp_path / "rows.jsonl", topic_rows())  # 24 rows
    whole = texts(itertools.islice(iter(load(path).stream), used + 30))
    first = load(path).stream
    list(itertools.islice(iter(first), used + 8))  # it was read ahead of the training
    position = first.position(used)
    second = load(path).stream
    second.seek(position)
    assert texts(itertools.islice(iter(second), 30)) == whole[used:]
    assert second.position(5) == Position(*divmod(position.epoch * 24 + position.index + 5, 24))


def test_rows_that_are_appended_count_from_the_next_epoch(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    stream = iter(load(path).stream)
    assert len(texts(itertools.islice(stream, 1))) == 1
    touched(path, [*ROWS, {"text": "new bank", "label": "sport"}])
    rest = texts(itertools.islice(stream, 2))
    assert "[UNK] bank" not in rest
    assert "[UNK] bank" in texts(itertools.islice(stream, 4))


def test_files_of_a_pattern_come_and_go(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "1.jsonl", ROWS[:1])
    stream = iter(load(tmp_path / "*.jsonl").stream)
    assert texts(itertools.islice(stream, 1)) == ["the cat"]
    write_rows(tmp_path / "2.jsonl", ROWS[1:2])
    assert sorted(texts(itertools.islice(stream, 2))) == ["a dog", "the cat"]
    one.unlink()
    assert texts(itertools.islice(stream, 2)) == ["a dog", "a dog"]


@pytest.mark.parametrize("harm", ["vanished", "broken", "emptied", "without column"])
def test_a_file_that_breaks_is_said_once_and_its_old_content_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    data = load(path)
    stream = iter(data.stream)
    next(stream)
    if harm == "vanished":
        path.unlink()
    else:
        path.write_text({"broken": "{", "emptied": "", "without column": '{"other": 1}\n'}[harm])
    with caplog.at_level(logging.WARNING):
        later = texts(itertools.islice(stream, 8))
    assert set(later) == {row["text"] for row in ROWS}
    assert [record.message.count("rows.jsonl") for record in caplog.records if "old content" in record.message] == [1]
    touched(path, [{"text": "a law", "label": "sport"}])
    assert "a law" in texts(itertools.islice(stream, 6))


def test_rows_that_all_lose_their_text_are_no_training_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    stream = iter(load(path).stream)
    next(stream)
    path.write_text(json.dumps({"text": "", "label": "tech"}) + "\n")
    assert set(texts(itertools.islice(stream, 8))) == {row["text"] for row in ROWS}
    assert "nothing to train on" in caplog.text
