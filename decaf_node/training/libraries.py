"""The libraries that train: they come with the extra ``train``, for a daemon does without them."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from decaf_node.errors import BadSettings

NEEDED = ("accelerate", "datasets", "peft", "safetensors", "torch", "transformers")


def demand_libraries(or_else: str = "") -> None:
    """Raise BadSettings (``training.no-libraries``) unless they are all installed. Loads none.

    or_else: what helps as well, as the end of the sentence.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if not missing:
        return
    there = f"To train takes {', '.join(missing)}, which {sys.executable} does not find"
    if missing == ["torch"]:
        remedy = "install a torch for this device (docs/jetson.md says how on a Jetson)"
    else:
        remedy = f'run {sys.executable} -m pip install "decaf-node[train]"'
    raise BadSettings("training.no-libraries", f"{there}: {remedy}{or_else}.")
