"""What operators have a running node do, beside pause and resume."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from decaf_node.daemon import logs
from decaf_node.daemon.answers import ExportAnswer, LeaveAnswer, ReloadAnswer
from decaf_node.daemon.driver import Driver
from decaf_node.daemon.exporting import copy_adapter
from decaf_node.daemon.store import Store
from decaf_node.daemon.talk import Talk
from decaf_node.errors import NotAllowed, TryAgain, UsageError
from decaf_node.link import EvaluatedNow
from decaf_node.mesh.events import MixRequested

log = logging.getLogger(__name__)


class Acts:
    """leave: ends the daemon, and returns how many members were told. reload: see ``Reloading.reload``."""

    def __init__(
        self,
        driver: Driver,
        talk: Talk,
        store: Store,
        leave: Callable[[], Awaitable[int]],
        reload: Callable[[], Awaitable[ReloadAnswer]],
    ) -> None:
        self._driver = driver
        self._talk = talk
        self._store = store
        self._leave = leave
        self._reload = reload

    async def leave(self) -> LeaveAnswer:
        """Save, say goodbye, and end the daemon."""
        told = await self._leave()
        return LeaveAnswer(self._driver.view().saved_round, told)

    async def mix_now(self) -> int:
        """End the local steps, unless they are over; return the round that is mixed next.

        Raises TryAgain ``trainer.not-ready`` or ``control.not-training``.
        """
        self._require_trainer()
        view = self._driver.view()
        if view.next_mix is None:
            raise TryAgain(
                "control.not-training",
                f"There are no local steps to end, the node is {view.phase}; try again when it is training.",
            )
        await self._driver.post_and_wait(MixRequested())
        return view.next_mix

    async def evaluate(self) -> EvaluatedNow:
        """Have the trainer score the held-out part. Raises ``trainer.not-ready`` and what ``Evaluating`` does."""
        self._require_trainer()
        return await self._talk.evaluating.evaluate()

    async def export(self, folder: str) -> ExportAnswer:
        """Return where the adapter is that was saved last, copied to ``folder`` unless that is empty.

        Raises UsageError ``usage.relative-path``, and what ``Store.exported`` and ``copy_adapter`` do.
        """
        if folder and not Path(folder).is_absolute():
            raise UsageError("usage.relative-path", f"{folder!r} is no absolute path; the daemon runs elsewhere.")
        return await asyncio.to_thread(self._export, folder)

    def _export(self, folder: str) -> ExportAnswer:
        exported, round = self._store.exported()
        if not folder:
            return ExportAnswer(str(self._store.adapter_folder), round)
        copy_adapter(exported, Path(folder))
        return ExportAnswer(folder, round)

    async def reload(self) -> ReloadAnswer:
        """Read settings and certificates anew. Raises what is wrong with them."""
        return await self._reload()

    def set_log_level(self, level: str) -> str:
        """Log from this level on; return the one before. Raises UsageError ``usage.bad-log-level``."""
        if level not in logs.LEVELS:
            raise UsageError("usage.bad-log-level", f"{level!r} is no log level; take {', '.join(logs.LEVELS)}.")
        before = logs.set_level(level)
        log.info("The log level is %s now, and was %s.", level, before)
        return before

    def _require_trainer(self) -> None:
        if self._talk.ready is None:
            raise TryAgain("trainer.not-ready", "The trainer is not ready; decaf-node status says why. Try again then.")


def refuse_from_afar(folder: str, peer: str) -> None:
    """Raise NotAllowed ``control.from-afar`` if a caller that is not on this device wants something written here."""
    if folder and not peer.startswith("unix:"):
        raise NotAllowed(
            "control.from-afar", "An adapter is copied only for callers on the device itself; call without a folder."
        )
