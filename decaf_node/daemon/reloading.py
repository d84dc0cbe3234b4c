"""SIGHUP and ``Reload``: certificates and settings read anew, and those settings taken on that can change meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress

from decaf_node.daemon import service
from decaf_node.daemon.answers import ReloadAnswer
from decaf_node.daemon.live_settings import Apply
from decaf_node.daemon.meeting import check_peers
from decaf_node.daemon.operators import operators_of
from decaf_node.daemon.problems import Problems, problem_of
from decaf_node.daemon.trust import Open, Trust
from decaf_node.errors import DecafError
from decaf_node.settings import Settings

log = logging.getLogger(__name__)


class Reloading:
    """Reads anew what can be.

    reread: reads the settings. live: those that need no restart, see ``live_settings``
    """

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        trust: Trust,
        problems: Problems,
        live: Mapping[str, Apply],
    ) -> None:
        self._settings = settings
        self._reread = reread
        self._trust = trust
        self._problems = problems
        self._live = live
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> ReloadAnswer:
        """Read all of it; return what has come of it.

        Raises what is wrong with the certificates or the settings; what was shown, or counted, before goes on then.
        """
        async with self._one_at_a_time:
            try:
                certificates = self._read_certificates()
            finally:  # the settings may be good
                applied, needs_restart = await self._read_settings()
        answer = ReloadAnswer(applied, needs_restart, certificates)
        log.info("%s", answer.sentence)
        return answer

    async def reload_quietly(self) -> None:
        """Do so because of SIGHUP: what is wrong is among the problems."""
        with service.reloading(), suppress(DecafError):
            await self.reload()

    def _read_certificates(self) -> bool:
        if isinstance(self._trust, Open):
            return False
        try:
            self._trust.reload()
        except DecafError as error:
            self._problems.set("certificate", problem_of(error, "What was shown before is shown on: "))
            raise
        self._problems.clear("certificate")
        return True

    async def _read_settings(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Take on what can be; return that, and what needs a restart."""
        before = self._settings
        try:
            now = await asyncio.to_thread(self._reread)
            check_peers(now.mesh.peers)
            operators_of(now, isinstance(self._trust, Open))
        except DecafError as error:
            self._problems.set("settings", problem_of(error, "The settings are as they were: "))
            raise
        self._problems.clear("settings")
        changed = differing(before, now)
        applied = tuple(key for key in changed if key in self._live and self._live[key](before, now))
        self._settings = _with(before, now, applied)
        return applied, tuple(key for key in changed if key not in applied)


def differing(before: Settings, now: Settings) -> list[str]:
    """Return the settings that are not the same, as ``section.key``, sorted."""
    old, new = before.model_dump(), now.model_dump()
    return sorted(
        f"{section}.{key}"
        for section in old
        for key in {*old[section], *new[section]}
        if old[section].get(key) != new[section].get(key)
    )


def _with(before: Settings, now: Settings, keys: tuple[str, ...]) -> Settings:
    """Return the settings of before with these of now."""
    sections = {key.partition(".")[0] for key in keys}
    document = before.model_dump()
    for section in sections:
        values = {key.partition(".")[2] for key in keys if key.startswith(f"{section}.")}
        document[section] = {**document[section], **{key: now.model_dump()[section][key] for key in values}}
    return Settings.model_validate(document)
