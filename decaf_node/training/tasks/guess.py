"""What new settings say of the task: that of folders of images, or of texts with labels where the model only reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from decaf_node.errors import BadData
from decaf_node.training.tasks.folders import METADATA, labels_in

LABEL = "label"  # the column that data.label_column names by default
MOST = 1000  # labels; a column with more of them is no class
NAMES = frozenset({"string", "large_string", "int64", "bool"})  # types of a column of classes
SPEAKS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # ends of the names of models that write texts


def task_of(model: Path, data: Sequence[Path]) -> dict[str, object]:
    """Return task and labels for ``[model]``, with the labels that are there; nothing for a language model.

    Nothing either where something may not be looked into: the service may be allowed to.
    """
    config = _config(model)
    try:
        labels = sorted({label for path in data for label in labels_in(path)})
        pictures = bool(labels) or any((path / METADATA).is_file() for path in data)
    except OSError:
        return {}
    if pictures:
        task = "clip" if config.get("model_type") == "clip" else "image-classification"
        return {"task": task, **({"labels": labels} if labels else {})}
    named = _named_in(tuple(data)) if _only_reads(config) else []
    return {"task": "sequence-classification", "labels": named} if named else {}


def _only_reads(config: Mapping[str, Any]) -> bool:
    """Say whether the model is known to read texts, and to have no head that writes them."""
    kinds = config.get("architectures")
    if not isinstance(kinds, list) or not kinds or config.get("model_type") == "clip":
        return False
    return not any(str(kind).endswith(SPEAKS) for kind in kinds)


@cache  # settings are looked at before and after the mesh has answered
def _named_in(data: tuple[Path, ...]) -> list[str]:
    """Return the labels of all rows, as the trainer reads them, sorted; none where a file is not that simple."""
    from decaf_node.training.libraries import demand_libraries
    from decaf_node.training.offline import go_offline, quiet

    demand_libraries(" to find the labels, or write the settings first, with model.task and model.labels")
    go_offline()
    quiet()
    from decaf_node.training.data import read_table

    labels: set[str] = set()
    for path in data:
        try:
            table = read_table(path)
        except BadData:  # the trainer says so, if it cannot read it either
            return []
        if getattr(table.features.get(LABEL), "dtype", None) not in NAMES:
            return []
        labels |= {str(value) for value in table.unique(LABEL) if value not in (None, "")}
    return sorted(labels) if len(labels) <= MOST else []


def _config(model: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}
