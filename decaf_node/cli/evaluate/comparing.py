"""Have a child process compare adapters, and keep what it finds; a node that runs is left alone."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decaf_node.cli.child import converse, scratch_folder
from decaf_node.cli.history import past_rounds
from decaf_node.cli.ownership import hand_over
from decaf_node.daemon.client import Client
from decaf_node.daemon.comparisons import FOLDER, keep_comparison
from decaf_node.daemon.durable import disk_errors, make_folder
from decaf_node.daemon.exporting import copy_adapter
from decaf_node.errors import DecafError, TryAgain
from decaf_node.places import Places
from decaf_node.settings import load_settings

COMPARE = "decaf_node.training.compare"


@dataclass(frozen=True)
class Node:
    """What the node has saved: its last round, and the local steps up to it. device: what it trains on now."""

    round: int
    steps: int
    device: str


def compare(file: Path, places: Places, connect: Callable[[], Client], alone: bool, most: int | None) -> dict[str, Any]:
    """Compare on ``file``, keep the result and return it as a document.

    alone: also with own data alone, trained for as many steps as the node, or ``most`` of them.
    Raises BadSettings, TryAgain ``export.nothing-saved``, ``alone.no-steps``, and what the child says.
    """
    settings = load_settings(places.config, os.environ)
    with scratch_folder("eval") as scratch:
        adapter = scratch / "adapter"
        copy_adapter(places.state / "export" / "adapter", adapter)
        node = _node(connect, places)
        steps = _steps(node, most) if alone else 0
        if node.device.startswith("cuda") and settings.model.device != "cpu":
            _note(f"The node trains on {node.device} meanwhile, so both are slower.")
        asked = {
            "settings": settings.model_dump(mode="json"),
            "file": str(file),
            "adapter": str(adapter),
            "folder": str(places.state / FOLDER),
            "steps": steps,
        }
        try:
            with disk_errors(places.state):
                make_folder(places.state / FOLDER)
            found = converse(COMPARE, asked, scratch)
        finally:
            hand_over(places)  # also what is left where it fails
    document = {"time": time.time(), "file": str(file), "round": node.round, "steps": node.steps, **found}
    if steps:
        document["models"]["alone"]["steps"] = steps
    try:
        keep_comparison(places.state, document)
        hand_over(places)
    except DecafError as error:
        _note(f"It is not kept: {error}")
    return document


def _node(connect: Callable[[], Client], places: Places) -> Node:
    with past_rounds(connect, places) as past:
        saved = [(row.round, row.steps) for row in past.rounds if row.saved]
        device = "" if past.client is None else past.client.status().trainer.device
        return Node(max((round for round, _ in saved), default=0), sum(steps for _, steps in saved), device)


def _steps(node: Node, most: int | None) -> int:
    if not node.steps:
        raise TryAgain(
            "alone.no-steps", "No local steps are saved in this node's history, so there is nothing to train alone for."
        )
    return min(node.steps, most or node.steps)


def _note(sentence: str) -> None:
    print(f"decaf-node: {sentence}", file=sys.stderr, flush=True)
