"""Read labelled texts, and leave out those that are there twice."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decaf_node.errors import BadData

BEGINNING = 200


@dataclass(frozen=True)
class Article:
    text: str
    label: str


def read_topics(folder: Path) -> list[Article]:
    """Read ``folder/<topic>/*.txt``, one article a file, in the order of the names."""
    return [
        Article(path.read_text(encoding="utf-8", errors="replace"), path.parent.name)
        for path in sorted(folder.glob("*/*.txt"))
    ]


def read_file(path: Path, text_column: str, label_column: str) -> list[Article]:
    """Read a JSONL, CSV or Parquet file. Rows without text or label are left out.

    Raises BadData if the file is missing, unreadable or of another kind, or has no such column.
    """
    try:
        rows = list(_rows(path))
    except FileNotFoundError:
        raise BadData("data.missing", f"There is no data file {path}; name one with --data.") from None
    except UnicodeDecodeError as error:
        raise BadData("data.unreadable", f"The data file {path} is not text in UTF-8; save it as that.") from error
    except (OSError, ValueError, csv.Error) as error:
        why = str(error).rstrip(".")
        raise BadData("data.unreadable", f"The data file {path} cannot be read: {why}.") from error
    if not rows:
        raise BadData("data.empty", f"The data file {path} has no rows; name one that has.")
    for option, column in (("--text-column", text_column), ("--label-column", label_column)):
        if not any(column in row for row in rows):
            columns = ", ".join(sorted(set().union(*rows)))
            raise BadData(
                "data.column-missing", f"{path} has no column {column}; it has {columns}: choose one with {option}."
            )
    wanted = ((row.get(text_column), row.get(label_column)) for row in rows)
    return [Article(str(text), str(label)) for text, label in wanted if text not in (None, "") and label is not None]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    match path.suffix.lower():
        case ".jsonl" | ".json":
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if line.strip():
                    yield _json_row(line, number)
        case ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                yield from csv.DictReader(file)
        case ".parquet":
            import pyarrow.parquet  # type: ignore[import-untyped]  # only for those who bring such a file

            yield from pyarrow.parquet.read_table(path).to_pylist()
        case suffix:
            raise ValueError(f"its name ends in {suffix or 'nothing'}, not in .jsonl, .csv or .parquet")


def _json_row(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} is not JSON ({error.msg})") from None
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is not a JSON object")
    return row


def without_duplicates(articles: Iterable[Article]) -> list[Article]:
    """Keep the first of those that begin alike: the same article, or one that was sent out again with corrections.

    Else what one node trains on could be tested at another.
    """
    first: dict[str, Article] = {}
    for article in articles:
        first.setdefault(_beginning(article.text), article)
    return list(first.values())


def _beginning(text: str) -> str:
    """Return the first letters and digits, without case: more than a model of 64 tokens would need to know it again."""
    words = re.findall(r"\w+", text.casefold())
    return " ".join(words)[:BEGINNING]
