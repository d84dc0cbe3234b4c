"""How far a campaign is, also within its seeds, for whoever watches: nothing of it goes back into a run."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import SpawnContext

from decaf_node.sim.plan import Plan
from decaf_node.sim.run import Outcome, play

Told = Callable[[float, int], None]  # virtual seconds and steps that were played so far, of all seeds


class Progress:
    """Counts what was played, in all processes that share it."""

    def __init__(self, context: SpawnContext) -> None:
        self._totals = context.Array("d", 2)

    def play(self, plan: Plan, seed: int, told: Told | None = None) -> Outcome:
        """Play the seed, and count it while it is played."""
        counted = 0.0, 0

        def passed(now: float, steps: int) -> None:
            nonlocal counted
            with self._totals.get_lock():
                self._totals[0] += now - counted[0]
                self._totals[1] += steps - counted[1]
            counted = now, steps
            if told is not None:
                told(*self.read())

        return play(plan, seed, passed=passed)

    def read(self) -> tuple[float, int]:
        """Return the virtual seconds and the steps so far."""
        with self._totals.get_lock():
            return self._totals[0], int(self._totals[1])
