"""The comparisons that ``decaf-node eval FILE`` has made: one JSON line each, the oldest first.

Not in ``rounds.sqlite``: a running daemon has that for itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from decaf_node.daemon.documents import json_line
from decaf_node.daemon.durable import disk_errors, make_folder, write_private
from decaf_node.errors import BadData

FOLDER = "evaluations"  # in the state folder
FILE = "comparisons.jsonl"
KEPT = 1000


def comparisons(state: Path) -> list[dict[str, Any]]:
    """Return what is kept, the newest last. Raises BadData ``state.damaged-file``, and what ``disk_errors`` does."""
    path = state / FOLDER / FILE
    with disk_errors(path.parent):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    try:
        return [dict(json.loads(line)) for line in text.split("\n") if line]
    except (ValueError, TypeError):
        raise BadData("state.damaged-file", f"{path} is damaged; remove it: what it held is lost then.") from None


def keep_comparison(state: Path, document: dict[str, Any]) -> None:
    """Add ``document`` as the newest; only the last ``KEPT`` stay. Raises as ``comparisons`` does."""
    lines = [json_line(one) for one in [*comparisons(state), document][-KEPT:]]
    with disk_errors(state / FOLDER):
        make_folder(state / FOLDER)
        write_private(state / FOLDER / FILE, "".join(f"{line}\n" for line in lines).encode())
