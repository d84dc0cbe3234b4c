"""What new settings say of the task: that of folders of images, or of texts with labels where the model only reads."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from decaf_node.training.tasks.folders import METADATA, labels_in

LABEL = "label"  # the column that data.label_column names by default
ROWS = 100_000  # that are looked at, of a file
SPEAKS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # ends of the names of models that write texts


def task_of(model: Path, data: Sequence[Path]) -> dict[str, object]:
    """Return task and labels for ``[model]``, with the labels that are there; nothing for a language model.

    Nothing either where something may not be looked into: the service may be allowed to.
    """
    config = _config(model)
    try:
        labels = sorted({label for path in data for label in labels_in(path)})
        if labels or any((path / METADATA).is_file() for path in data):
            task = "clip" if config.get("model_type") == "clip" else "image-classification"
            return {"task": task, **({"labels": labels} if labels else {})}
        labels = sorted({label for path in data for label in _named_in(path)}) if _reads_only(config) else []
    except (OSError, ValueError, csv.Error):
        return {}
    return {"task": "sequence-classification", "labels": labels} if labels else {}


def _reads_only(config: Mapping[str, Any]) -> bool:
    """Say whether the model is known to have no head that writes texts."""
    kinds = config.get("architectures")
    return isinstance(kinds, list) and bool(kinds) and not any(str(kind).endswith(SPEAKS) for kind in kinds)


def _named_in(path: Path) -> Iterator[str]:
    """Yield the labels in JSONL or CSV; other files are left to who writes the settings."""
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".csv":
            rows: Iterator[Any] = csv.DictReader(file)
        elif path.suffix.lower() == ".jsonl":
            rows = (json.loads(line) for line in file if line.strip())
        else:
            return
        for row in islice(rows, ROWS):
            if isinstance(row, dict) and row.get(LABEL) is not None:
                yield str(row[LABEL])


def _config(model: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
