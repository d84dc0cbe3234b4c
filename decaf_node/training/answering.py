"""A child process that answers the command line: one JSON document in, JSON lines out.

Lines are ``{"doing": WORDS}``, and at last ``{"found": ...}`` or ``{"error": {"reason", "message", "exit_code"}}``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from decaf_node.errors import DecafError
from decaf_node.training.libraries import demand_libraries
from decaf_node.training.offline import go_offline


def answer(find: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Answer what is asked on stdin by what ``find`` returns or raises as DecafError; return the exit code."""
    go_offline()
    try:
        demand_libraries()
        _tell(found=find(json.load(sys.stdin)))
    except DecafError as error:
        _tell(error={"reason": error.reason, "message": error.message, "exit_code": error.exit_code})
        return error.exit_code
    return 0


def doing(words: str) -> None:
    """Say what is done now."""
    _tell(doing=words)


def _tell(**said: Any) -> None:
    print(json.dumps(said), flush=True)
