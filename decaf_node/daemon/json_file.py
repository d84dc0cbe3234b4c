"""A small JSON file of this node, written whole; damaged, it is said and not guessed at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from decaf_node.daemon.durable import disk_errors, write_private
from decaf_node.errors import BadData

Content = TypeVar("Content")


def read_json(path: Path, read: Callable[[Any], Content], nothing: Content) -> Content:
    """Return what ``read`` makes of the file; ``nothing`` if there is none. Raises BadData ``state.damaged-file``."""
    with disk_errors(path.parent):
        data = path.read_bytes() if path.exists() else b""
    try:
        return read(json.loads(data)) if data else nothing
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise BadData(
            "state.damaged-file", f"{path} is damaged; restore it from a copy, or remove it: what it held is lost then."
        ) from None


def write_json(path: Path, document: Any) -> None:
    """Write the file; it is whole after a crash, as before or as now."""
    with disk_errors(path.parent):
        write_private(path, json.dumps(document).encode())
