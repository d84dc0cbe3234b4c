"""The command ``decaf-node``, killing itself by SIGKILL at a named point: ``python -m tests.e2e.reliability.dying``.

The file that the environment names in ``DIE_AT`` holds the name of the point; without it nothing happens. It is gone
before the process is, so that the next one lives.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIE_AT = "DIE_AT"


@dataclass(frozen=True)
class Point:
    """A call of the daemon. argument: the name of its first argument's type, where not any will do."""

    module: str
    method: str
    argument: str = ""
    after: bool = False


# in the order of a round
POINTS = {
    "training": Point("decaf_node.daemon.talk", "Talk.hear", "Progress"),
    "publishing its snapshot": Point("decaf_node.daemon.talk", "Talk.hear", "RoundTrained"),
    "hearing an offer": Point("decaf_node.mesh.node", "Node.step", "OfferReceived"),
    "receiving a snapshot": Point("decaf_node.daemon.fetch", "Fetch.write"),
    "inspecting a snapshot": Point("decaf_node.mesh.node", "Node.step", "SnapshotInspected"),
    "after keeping its receipt": Point("decaf_node.daemon.store", "Store.save_receipt", after=True),
    "hearing a receipt": Point("decaf_node.mesh.node", "Node.step", "ReceiptReceived"),
    "mixing": Point("decaf_node.daemon.talk", "Talk.mix", after=True),
    "hearing of the mix": Point("decaf_node.mesh.node", "Node.step", "RoundMixed"),
    "before saving": Point("decaf_node.daemon.store", "Store.commit_round"),
    "between files and row": Point("decaf_node.daemon.database", "Database.save"),
    "after saving": Point("decaf_node.daemon.store", "Store.commit_round", after=True),
}


def arm(name: str, file: Path) -> None:
    """Die at this point if ``file`` names it."""
    point = POINTS[name]
    kind, method = point.method.split(".")
    owner = getattr(importlib.import_module(point.module), kind)
    setattr(owner, method, dying(getattr(owner, method), point, lambda: die_if_named(name, file)))


def dying(original: Callable[..., Any], point: Point, die: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(original)
    def called(owner: Any, *values: Any, **named: Any) -> Any:
        fits = not point.argument or type(values[0]).__name__ == point.argument
        if fits and not point.after:
            die()
        result = original(owner, *values, **named)
        if fits and point.after:
            die()
        return result

    return called


def die_if_named(name: str, file: Path) -> None:
    try:
        named = file.read_text()
    except FileNotFoundError:
        return
    if named == name:
        file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # as the command does, before gRPC is imported
    for name in POINTS:
        arm(name, Path(os.environ[DIE_AT]))
    from decaf_node.cli.main import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
