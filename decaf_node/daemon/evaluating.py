"""An evaluation that somebody has asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from decaf_node import link
from decaf_node.errors import NotAllowed, TryAgain


class Evaluating:
    """One at a time: who asks meanwhile is answered with it. ask: has the trainer evaluate."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._answer: asyncio.Future[link.EvaluatedNow | None] | None = None

    async def evaluate(self) -> link.EvaluatedNow:
        """Return what the trainer finds. Raises TryAgain ``trainer.lost``, NotAllowed ``control.no-evaluation``."""
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            self._ask()
        answer = await asyncio.shield(self._answer)
        if answer is None:
            raise TryAgain("trainer.lost", "The trainer ended before it had evaluated; try again when it is back.")
        if not answer.examples:
            raise NotAllowed(
                "control.no-evaluation",
                "This node has no held-out part to evaluate; set data.evaluation or data.evaluation_fraction.",
            )
        return answer

    def answer(self, answer: link.EvaluatedNow | None) -> None:
        """The trainer has answered; None: it never will."""
        if self._answer is not None:
            self._answer.set_result(answer)
            self._answer = None
