"""What new settings say of the task where the data are folders of images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from decaf_node.training.tasks.folders import METADATA, labels_in


def task_of(model: Path, data: Sequence[Path]) -> dict[str, object]:
    """Return task and labels for ``[model]``, with the labels that are there; nothing for files of texts.

    Nothing either where a folder may not be looked into: the service may be allowed to.
    """
    try:
        labels = sorted({label for path in data for label in labels_in(path)})
        if not labels and not any((path / METADATA).is_file() for path in data):
            return {}
    except OSError:
        return {}
    task = "clip" if _type_of(model) == "clip" else "image-classification"
    return {"task": task, **({"labels": labels} if labels else {})}


def _type_of(model: Path) -> object:
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config.get("model_type") if isinstance(config, dict) else None
