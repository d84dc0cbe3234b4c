"""Write settings as TOML."""

from __future__ import annotations

import json
from typing import Any


def toml(document: dict[str, dict[str, Any]]) -> str:
    """Write sections of plain values as TOML; its strings, numbers and lists look as in JSON."""
    lines = []
    for section, keys in document.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]
        lines.append("")
    return "\n".join(lines)
