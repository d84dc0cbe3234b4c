"""What is wrong with this node now, in sentences for a person; each kind of trouble has one place."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from decaf_node.daemon.logs import fields, printable
from decaf_node.errors import DecafError

log = logging.getLogger(__name__)

REPEAT_SECONDS = 600.0  # the same notice is said again after so long
CHANGE_SECONDS = 10.0  # and one that differs in a number, say, after so long
NOTICES = 1024


@dataclass(frozen=True)
class Problem:
    """What is wrong and what to do about it. id: stable, as ``disk.full``; critical: see ``Alert`` in monitor.proto."""

    id: str
    sentence: str
    remedy: str = ""
    critical: bool = False

    @property
    def words(self) -> str:
        """What is wrong and what to do about it."""
        return f"{self.sentence} {self.remedy}".rstrip()


def problem_of(error: DecafError, before: str = "", critical: bool = False) -> Problem:
    """Return what an error says, behind ``before``."""
    what, remedy = in_parts(error.message)
    return Problem(error.reason, before + what, remedy, critical)


def in_parts(sentence: str) -> tuple[str, str]:
    """Return what is wrong and what to do about it: after the last semicolon, as in all our sentences, if anywhere."""
    what, found, remedy = sentence.rpartition("; ")
    return (f"{what}.", remedy[:1].upper() + remedy[1:]) if found else (sentence, "")


class Problems:
    """Keeps what is wrong, for ``status``, and says it in the log when it begins or changes.

    clock: monotonic seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._problems: dict[str, Problem] = {}
        self._said: OrderedDict[str, float] = OrderedDict()

    def set(self, place: str, problem: Problem, every: float = 0.0) -> None:
        """Something is wrong at ``place`` (trainer, disk, ...).

        every: seconds before the log speaks of the place again, though it were well meanwhile, or another sentence
        """
        problem = replace(problem, sentence=printable(problem.sentence), remedy=printable(problem.remedy))
        if self._problems.get(place) != problem and self._is_due(place, every):
            log.warning("%s", problem.words, extra=fields(place=place, problem=problem.id))
        self._problems[place] = problem

    def _is_due(self, place: str, every: float) -> bool:
        if every <= 0.0:
            return True
        now = self._clock()
        if now - self._said.get(place, float("-inf")) < every:
            return False
        self._said[place] = now
        self._said.move_to_end(place)
        while len(self._said) > NOTICES:
            self._said.popitem(last=False)
        return True

    def has(self, place: str) -> bool:
        """Tell whether something is wrong there."""
        return place in self._problems

    def clear(self, place: str) -> None:
        """It is well again there."""
        self._problems.pop(place, None)

    def by_place(self) -> dict[str, Problem]:
        """Return all of it, in the order of the places."""
        return {place: self._problems[place] for place in sorted(self._problems)}


class Notices:
    """Says a thing about a peer once, and again only when it changes or after a while. level: of ``logging``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[tuple[str, str], tuple[str, float]] = {}

    def say(self, reason: str, sentence: str, peer: str = "", level: int = logging.WARNING) -> None:
        """Log the sentence, unless it was just said of this peer for this reason."""
        before, when = self._said.get((reason, peer), ("", -REPEAT_SECONDS))
        now = self._clock()
        if now - when < (REPEAT_SECONDS if sentence == before else CHANGE_SECONDS):
            log.debug("%s", sentence, extra=fields(reason=reason, peer=peer))
            return
        if len(self._said) >= NOTICES:
            self._said.clear()
        self._said[reason, peer] = sentence, now
        log.log(level, "%s", sentence, extra=fields(reason=reason, peer=peer))
