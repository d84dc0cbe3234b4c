"""Child processes that save rounds and die on the way. Kept apart so that they start fast."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from decaf_node.daemon.store import open_store
from decaf_node.mesh.events import Edge, Receipt
from tests.daemon.saving import save, stage

EDGE = Edge("PEER", "a" * 64, "b" * 64, 0.25)
ANSWER = Receipt(EDGE.theirs, EDGE.own, EDGE.weight)
CALLS = ("fsync", "replace", "rename", "symlink", "unlink", "rmdir", "mkdir", "open", "ftruncate")


def on_call(number: int, act: Callable[[], None], after: bool = False) -> Callable[[], None]:
    """From now on ``act`` at the ``number``-th call that changes files, before or after it; return how to undo this."""
    counted = 0
    originals = {name: getattr(os, name) for name in CALLS}

    def called(original: Callable[..., Any], *values: Any, **named: Any) -> Any:
        nonlocal counted
        counted += 1
        now = counted == number
        if now and not after:
            act()
        try:
            return original(*values, **named)
        finally:
            if now and after:
                act()

    for name, original in originals.items():
        setattr(os, name, partial(called, original))

    def undo() -> None:
        for name, original in originals.items():
            setattr(os, name, original)

    return undo


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def save_third_round(state: Path, number: int, after: bool) -> None:
    """Save round 3 on top of a state that has two rounds and a receipt; die at a call."""
    on_call(number, die, after)
    with contextlib.closing(open_store(state, "home")) as store:
        store.commit_round(3, 2, *stage(store, 3), details={}, mixed=(EDGE,))


def save_for_ever(state: Path, seconds: float, told: Path) -> None:
    """Save round after round, tell of each when it is done, and die after ``seconds``."""
    new = told.with_suffix(".new")
    signal.setitimer(signal.ITIMER_REAL, seconds)
    with contextlib.closing(open_store(state, "home")) as store:
        saved = store.saved()
        round = saved.round if saved else 0
        while True:
            round += 1
            store.save_receipt(EDGE, round)
            store.complete_receipt(EDGE.peer, ANSWER)
            save(store, round, mixed=(EDGE,), values=2000)
            new.write_text(str(round))
            os.replace(new, told)
