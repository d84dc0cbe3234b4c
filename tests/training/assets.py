"""Real models and texts, where ``make demo`` or tools/fetch_demo.py has put them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("DECAF_NODE_DEMO_ASSETS") or Path(__file__).parents[2] / ".demo")


def asset(name: str) -> Path:
    """Return the path of an asset; the test is skipped where it has not been fetched."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{path} is not there; run tools/fetch_demo.py, or set DECAF_NODE_DEMO_ASSETS")
    return path
