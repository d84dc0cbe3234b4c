"""Private data: read from files or folders, split, and given out for ever in a seeded order.

At each new epoch the files are looked at again: what was appended, replaced, added to or taken from a pattern counts
from then on. A file that cannot be read any more is said and its old content kept: a running node never stops for it.
"""

from __future__ import annotations

import glob
import logging
import re
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
from datasets.exceptions import DatasetGenerationError
from torch.utils.data import IterableDataset

from decaf_node.errors import BadData
from decaf_node.settings import Settings
from decaf_node.training.examples import BadRow, Example, columns_needed, make_encoder
from decaf_node.training.model import first_line

READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
ROWS_AT_ONCE = 1000
QUOTED = re.compile(r"""(?<!\w\w)(['"])(.*\1(?!\w)|.*)""")
Stamp = tuple[int, int]  # size and time of a file, say
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """The examples of one file as it was when it had this size and time."""

    stamp: Stamp | None
    examples: list[Example]


@dataclass(frozen=True)
class Position:
    """How far the data was used: ``index`` examples into the order of ``epoch``."""

    epoch: int = 0
    index: int = 0


class Source(Protocol):
    """Turns what a path names into examples."""

    def stamp(self, path: Path) -> Stamp | None:
        """Return what changes whenever the content does; None where there is nothing."""

    def read(self, path: Path) -> list[Example]:
        """Return the examples there are. Raises BadData."""


class Files:
    """Data files, or folders, and patterns of them, read again only where they changed."""

    def __init__(self, paths: Sequence[Path], source: Source) -> None:
        self._paths = paths
        self._source = source
        self._loaded: dict[Path, Loaded] = {}
        self._refused: dict[Path, Stamp | None] = {}

    def load(self) -> None:
        """Read everything for the first time. Raises BadData."""
        for path in self._found():
            self._loaded[path] = self._read(path)

    def refresh(self) -> bool:
        """Read again what changed; say whether anything did. A file that cannot be read keeps its old content."""
        before, loaded = self._loaded, {}
        for path in self._found():
            file = self._again(path, before.get(path))
            if file is not None:
                loaded[path] = file
        self._loaded = loaded
        return loaded != before

    def examples(self) -> list[Example]:
        return [example for path in sorted(self._loaded) for example in self._loaded[path].examples]

    def _found(self) -> list[Path]:
        """Return the files there are now; a name or pattern without any stands for those that it had before."""
        found: set[Path] = set()
        for path in self._paths:
            matches = {path} if path.exists() else {Path(name) for name in glob.glob(str(path), recursive=True)}
            found |= matches or {old for old in self._loaded if fnmatch(str(old), str(path))} or {path}
        return sorted(found)

    def _again(self, path: Path, old: Loaded | None) -> Loaded | None:
        """Return what ``path`` holds now; ``old``, with one warning, as long as it cannot be read."""
        stamp = self._source.stamp(path)
        if (old is not None and old.stamp == stamp) or (path in self._refused and self._refused[path] == stamp):
            return old
        try:
            fresh = self._read(path)
        except BadData as error:
            self._refused[path] = stamp
            logger.warning("%s Its old content is used.", error)
            return old
        self._refused.pop(path, None)
        return fresh

    def _read(self, path: Path) -> Loaded:
        stamp = self._source.stamp(path)
        return Loaded(stamp, self._source.read(path))


class Rows:
    """The rows of JSONL, CSV or Parquet files, as the settings and the tokenizer make texts of them.

    Raises BadSettings where columns contradict each other.
    """

    def __init__(self, settings: Settings, tokenizer: Any) -> None:
        self._columns = columns_needed(settings)
        self._encode = make_encoder(settings, tokenizer)

    def stamp(self, path: Path) -> Stamp | None:
        """Return None for a file that is not there."""
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def read(self, path: Path) -> list[Example]:
        """See ``Source``."""
        table = read_table(path)
        missing = [column for column in self._columns if column not in table.column_names]
        if missing:
            raise BadData("data.column-missing", f"{path} has no column {missing[0]}; it has {_columns(path, table)}.")
        examples: list[Example] = []
        for start in range(0, len(table), ROWS_AT_ONCE):
            rows = [dict(row) for row in table.select(range(start, min(start + ROWS_AT_ONCE, len(table))))]
            try:
                examples += self._encode(rows)
            except BadRow as error:
                raise BadData(error.reason, f"{path}, row {start + error.index + 1}: {error.message}") from None
            except BadData as error:
                raise BadData(error.reason, f"{path}: {error.message}") from error
        return examples


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Training examples without end: each epoch in an order drawn from (seed, epoch).

    It runs ahead of the training (the loader fetches a batch early), so it remembers where its epochs began, and
    ``position`` says where a number of examples used up has led.
    """

    def __init__(self, files: Files, held_out: float, seed: int) -> None:
        super().__init__()
        self._files = files
        self._held_out = held_out
        self._seed = seed
        self._start = Position()
        self._epochs: deque[tuple[int, int]] = deque([(0, 0)])
        self.examples = _training_part(files.examples(), held_out)

    def seek(self, position: Position) -> None:
        """Begin there. To be called before the first example is taken."""
        self._start = position
        self._epochs = deque([(-position.index, position.epoch)])

    def position(self, used: int) -> Position:
        """Return the position after ``used`` examples since the start; ``used`` never goes back."""
        while len(self._epochs) > 1 and self._epochs[1][0] <= used:
            self._epochs.popleft()
        begin, epoch = self._epochs[0]
        return Position(epoch, used - begin)

    def __iter__(self) -> Iterator[Example]:
        given = 0
        epoch, index = self._start.epoch, self._start.index
        while True:
            for number in np.random.default_rng((self._seed, epoch)).permutation(len(self.examples))[index:]:
                given += 1
                yield self.examples[number]
            epoch, index = epoch + 1, 0
            self._epochs.append((given, epoch))
            self.refresh()

    def refresh(self) -> None:
        """Look at the files again; what they hold now counts from here on."""
        if self._files.refresh():
            fresh = _training_part(self._files.examples(), self._held_out)
            if fresh:
                self.examples = fresh
            else:
                logger.warning("The data files hold nothing to train on any more; their old content is used.")


@dataclass(frozen=True)
class Data:
    stream: Stream
    evaluation: list[Example]


def load_data(settings: Settings, source: Source) -> Data:
    """Read training and evaluation data. Raises BadData.

    Without evaluation files a part is held out by each row's content, so it stays held out when files grow.
    """
    files = Files(settings.data.train, source)
    files.load()
    fraction = 0.0 if settings.data.evaluation else settings.data.evaluation_fraction
    stream = Stream(files, fraction, settings.training.seed)
    if not stream.examples:
        names = ", ".join(str(path) for path in settings.data.train)
        raise BadData(
            "data.empty",
            f"Nothing is left to train on in {names}: no rows with text, or images, beside the held-out part.",
        )
    if not settings.data.evaluation:
        return Data(stream, [example for example in files.examples() if example.content < fraction])
    held_out = Files(settings.data.evaluation, source)
    held_out.load()
    return Data(stream, held_out.examples())


def read_table(path: Path) -> datasets.Dataset:
    """Return the rows of one file. Raises BadData.

    The cache that ``datasets`` writes is thrown away: private data stays where its owner put it.
    """
    kind = READERS.get(path.suffix.lower())
    if kind is None:
        raise BadData("data.unknown-format", f"{path} is not named as JSONL, CSV or Parquet (.jsonl, .csv, .parquet).")
    try:
        empty = path.stat().st_size == 0
    except OSError as error:
        raise BadData("data.missing", f"The data file {path} cannot be read: {error.strerror}.") from error
    if empty:
        raise BadData("data.empty", f"{path} is empty.")
    options = {"keep_default_na": False} if kind == "csv" else {}  # a text "NA" is a text
    with tempfile.TemporaryDirectory(prefix="decaf-node-data-") as cache:
        try:
            return datasets.load_dataset(
                kind, data_files=str(path), split="train", cache_dir=cache, keep_in_memory=True, **options
            )
        except (DatasetGenerationError, OSError, ValueError, TypeError) as error:
            raise BadData(
                "data.unreadable", f"{path} cannot be read: {unquoted(first_line(error.__cause__ or error))}"
            ) from error


def unquoted(text: str) -> str:
    """Return what a library says of a file without what it quotes: that may be a row."""
    return QUOTED.sub("(...)", text)


def _columns(path: Path, table: datasets.Dataset) -> str:
    """Name the columns; only count those of a CSV file: without a header its first row would be named."""
    if path.suffix.lower() == ".csv":
        return f"{len(table.column_names)} others, if its first line is a header"
    return ", ".join(table.column_names) or "none"


def _training_part(examples: list[Example], held_out: float) -> list[Example]:
    return [example for example in examples if example.content >= held_out]
