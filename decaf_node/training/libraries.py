"""The libraries that train: they come with the extra ``train``, for a daemon does without them."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from decaf_node.errors import BadSettings

NEEDED = ("accelerate", "datasets", "peft", "safetensors", "torch", "transformers")


def demand_libraries() -> None:
    """Raise BadSettings (``training.not-installed``) unless they are all installed. Loads none."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise BadSettings(
            "training.not-installed",
            f"To train takes {', '.join(missing)}, which {'are' if missing[1:] else 'is'} not installed for "
            f'{sys.executable}: run pip install "decaf-node[train]" there.',
        )
