"""One fault after another on the mesh: what is measured of each, and what must hold when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.e2e.reliability.rooms import NAMES, Mesh, Sight

SETTLED_SECONDS = 75.0  # the disk is looked at once a minute
NOISE = 0.1  # of an accuracy on 150 articles: more than three standard errors


@dataclass(frozen=True)
class Outcome:
    """One row of the table.

    seconds: until every pair that should mix had done so with snapshots made after the fault had ended, or, of one
             that lasts, had begun
    lost:    rounds that were mixed and not saved
    loading: of those seconds, until the trainer had loaded torch and the model, where it was started anew
    """

    fault: str
    happened: str
    seconds: float
    lost: int = 0
    loading: float = 0.0


@dataclass(frozen=True)
class Found:
    """What must hold after it. accuracy: the best mean before a fault, and now; back: whose saved round went back."""

    accuracy: tuple[float, float]
    back: list[str] = field(default_factory=list)
    alerts: dict[str, list[str]] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        learnt, now = self.accuracy
        return now >= learnt - NOISE and not self.back and not self.alerts


Fault = Callable[[Mesh], Iterable[Outcome]]


def play(fault: Fault, mesh: Mesh) -> list[dict[str, Any]]:
    """Apply the fault; return its rows, each with what was found after it."""
    before = mesh.look()
    mesh.learnt = max(mesh.learnt, before.accuracy)
    began = time.monotonic()
    outcomes = list(fault(mesh))
    mesh.nobody_has_ended(NAMES)
    found = asdict(settle(mesh, before))
    took = round(time.monotonic() - began, 1)
    return [{**asdict(outcome), **found, "took": took} for outcome in outcomes]


def settle(mesh: Mesh, before: Sight) -> Found:
    """Wait until all is as it was, and learnt as well; return what is then, or what is still amiss after a while."""
    end = time.monotonic() + SETTLED_SECONDS
    while not (found := compare(mesh, before, mesh.look())).well and time.monotonic() < end:
        time.sleep(0.5)
    return found


def compare(mesh: Mesh, before: Sight, after: Sight) -> Found:
    back = [name for name in NAMES if after.saved.get(name, 0) < before.saved[name]]
    alerts = {name: said for name, said in after.alerts.items() if said}
    return Found((round(mesh.learnt, 3), round(after.accuracy, 3)), back, alerts)
