"""Two devices with one identity, as after copying a disk: seen by whoever meets both.

Each start of a daemon has an instance of its own. A node that is started again is heard under a new one, and the old
one is heard no more; where an instance is heard again after another, both run.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

REMEMBERED = 1024  # nodes; those heard last
AT_ONCE = 4  # instances of a node
FORGET_SECONDS = 600.0  # an instance not heard for so long runs no more
CLONED_SECONDS = 120.0  # two that have not alternated for so long are one, started again


@dataclass
class Instance:
    """One device that speaks for a node."""

    source: str
    heard: float


@dataclass(frozen=True)
class Clone:
    """Another device has the identity of who has spoken. first: of the two, who has spoken is the one to mix with."""

    source: str
    first: bool


class Clones:
    """Remembers who spoke for each node. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._nodes: OrderedDict[str, OrderedDict[str, Instance]] = OrderedDict()
        self._cloned: dict[str, float] = {}

    def heard(self, node: str, instance: str, source: str) -> Clone | None:
        """``instance`` has spoken for ``node``, from ``source``; return the other device, if there are two."""
        now = self._clock()
        known = self._nodes.setdefault(node, OrderedDict())
        self._nodes.move_to_end(node)
        for old in [old for old, seen in known.items() if now - seen.heard > FORGET_SECONDS]:
            del known[old]
        if instance in known and next(reversed(known)) != instance:
            self._cloned[node] = now
        known[instance] = Instance(source, now)
        known.move_to_end(instance)
        self._limit(known)
        others = [other for other in known if other != instance]
        if not others or now - self._cloned.get(node, float("-inf")) > CLONED_SECONDS:
            return None
        return Clone(known[others[-1]].source, instance < others[-1])

    def _limit(self, known: OrderedDict[str, Instance]) -> None:
        while len(known) > AT_ONCE:
            known.popitem(last=False)
        while len(self._nodes) > REMEMBERED:
            node, _ = self._nodes.popitem(last=False)
            self._cloned.pop(node, None)
