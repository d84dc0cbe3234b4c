"""Made-up outcomes of simulated seeds."""

from __future__ import annotations

import math
from typing import Any

from decaf_node.sim.problem import Measure
from decaf_node.sim.run import Finding, Outcome, Pace

PLAIN = Outcome(
    seed=0,
    finding=None,
    trace="ab" * 16,
    steps=1000,
    seconds=0.5,
    virtual_seconds=1800.0,
    paces=(Pace("n0", 120.0, 14, 15.0), Pace("n1", 30.0, 54, 60.0)),
    edges=40,
    one_sided=2,
    unreasoned=1,
    adoptions=3,
    frames=340,
    hellos=680,
    bytes=100_000,
    wait_longest=90.0,
    receipts_most=6,
    members_most=1,
    struck=(("break", 2), ("kill", 1)),
    curve=((60.0, Measure(2.0, math.nan, 1.0)), (120.0, Measure(0.5, math.nan, 1.0))),
)
FINDING = Finding("liveness", "n0 has not mixed with n1", ("   1.000  n0  Tick()", "              -> [Refuse]"))


def outcome(**changed: Any) -> Outcome:
    return Outcome(**(vars(PLAIN) | changed))
