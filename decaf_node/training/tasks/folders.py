"""Folders of images, looked through without torch: FOLDER/LABEL/*.png, or FOLDER/metadata.jsonl with what it says.

Both layouts are those of the imagefolder of Hugging Face's ``datasets``. Hidden files, and files that are not named
as images, are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decaf_node.errors import BadData

METADATA = "metadata.jsonl"
FILE_NAME = "file_name"
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file. label: the name of its class; caption: what its row says; empty where there is none."""

    path: Path
    label: str
    caption: str = ""


def pictures_in(folder: Path, labels: Sequence[str], label_column: str, text_column: str = "") -> list[Picture]:
    """Return the images of one folder, sorted. Raises BadData, also for a label that is not one of ``labels``, if any.

    text_column: the column of metadata.jsonl with the captions, if captions are wanted.
    """
    try:
        if not folder.exists():
            raise BadData("data.missing", f"There is no folder of images at {folder}; set data.train to one.")
        if not folder.is_dir():
            raise BadData("data.not-a-folder", f"{folder} is a file; for images, name a folder of FOLDER/LABEL/*.png.")
        if (folder / METADATA).is_file():
            found = list(_described(folder, labels, label_column, text_column))
        else:
            found = list(_sorted_by_label(folder, labels))
    except OSError as error:
        raise BadData("data.unreadable", f"The folder {folder} cannot be read: {error.strerror}.") from error
    if not found:
        raise BadData("data.empty", f"There are no images in {folder}; put them into FOLDER/LABEL/, as .png or .jpg.")
    return found


def labels_in(folder: Path) -> list[str]:
    """Return the names of the folders in ``folder`` that hold images, sorted; nothing where it is no folder."""
    return [inner.name for inner in _folders(folder) if any(image_files(inner))] if folder.is_dir() else []


def image_files(folder: Path) -> Iterator[Path]:
    """Yield the image files in ``folder`` and below it, sorted."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from image_files(path)
        elif path.suffix.lower() in SUFFIXES:
            yield path


def _sorted_by_label(folder: Path, labels: Sequence[str]) -> Iterator[Picture]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            raise BadData(
                "data.no-label", f"{path} lies in no label's folder; move it into one, {folder}/LABEL/, or take it out."
            )
    for inner in _folders(folder):
        files = list(image_files(inner))
        if files and labels and inner.name not in labels:
            raise _unknown_label(f"The folder {inner} is named after", labels)
        yield from (Picture(path, inner.name) for path in files)


def _described(folder: Path, labels: Sequence[str], label_column: str, text_column: str) -> Iterator[Picture]:
    """Yield what the rows of metadata.jsonl name. A row without a label has that of the folder that its file is in."""
    for place, row in _rows(folder / METADATA):
        name = row.get(FILE_NAME)
        if not isinstance(name, str) or not (folder / name).is_file():
            raise BadData("data.missing", f"{place}: {FILE_NAME} names no file in {folder}.")
        parts = Path(name).parts
        label = _words(row.get(label_column)) or (parts[0] if len(parts) > 1 else "")
        if labels and label not in labels:
            raise _unknown_label(f"{place}: column {label_column}, or the file's folder, has", labels)
        yield Picture(folder / name, label, _words(row.get(text_column)))


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        # splitlines would split captions, at U+2028 and others
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadData("data.unreadable", f"{path} cannot be read as UTF-8 text: {type(error).__name__}.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}, row {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise BadData("data.unreadable", f"{place}: it is no JSON object.")
        yield place, row


def _folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _words(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _unknown_label(where: str, labels: Sequence[str]) -> BadData:
    return BadData("data.unknown-label", f"{where} a label that is not in model.labels ({', '.join(labels)}).")
