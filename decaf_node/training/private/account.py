"""The privacy budget of a node: what is spent, kept on disk, and what is left.

Steps are counted as they are taken. The count is durable before anything that holds them may leave the process
(``keep``), so a crash can forget steps whose result nobody has seen, and never one that somebody has.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decaf_node.errors import BadData, BadSettings, TryAgain
from decaf_node.link import PrivacySpent
from decaf_node.training.private.spending import epsilon_of, steps_left

VERSION = 1


@dataclass(frozen=True)
class Terms:
    """The promise, and how a step keeps it. noise: multiplier of max_grad_norm. rate: chance of an example."""

    epsilon: float
    delta: float
    noise: float
    rate: float


class Account:
    """Counts steps against a budget. path: where the count is kept.

    Raises BadData if what is there is damaged: it is not begun anew, for that would forget.
    """

    def __init__(self, path: Path, terms: Terms) -> None:
        self.terms = terms
        self._path = path
        self._spent = _read(path)
        self._kept = sum(self._spent.values())
        self._left = steps_left(self._spent, terms.epsilon, terms.delta, terms.noise, terms.rate)

    @property
    def steps(self) -> int:
        """Steps ever counted."""
        return sum(self._spent.values())

    @property
    def left(self) -> int:
        """Steps that the budget still has."""
        return self._left

    @property
    def is_spent(self) -> bool:
        return self._left == 0

    def take(self) -> bool:
        """Count a step that is about to be taken; False, and nothing is counted, if the budget has none left."""
        if self.is_spent:
            return False
        key = (self.terms.noise, self.terms.rate)
        self._spent[key] = self._spent.get(key, 0) + 1
        self._left -= 1
        return True

    def keep(self) -> None:
        """Make the count durable. Raises TryAgain if it cannot be: then nothing may leave."""
        if self.steps == self._kept:
            return
        try:
            _write(self._path, self._spent)
        except OSError as error:
            raise TryAgain(
                "privacy.not-accounted",
                f"The privacy budget cannot be kept in {self._path} ({error.strerror or error}), so nothing is sent; "
                "make room, or give this user the right to write there.",
            ) from error
        self._kept = self.steps

    def check_covers(self, trained: int) -> None:
        """Raise BadSettings if a saved adapter has had ``trained`` steps, more than were ever counted here."""
        if trained > self.steps:
            raise BadSettings(
                "privacy.trained-without",
                f"The saved adapter has had {trained} steps and the privacy budget in {self._path} covers "
                f"{self.steps} of them; what others were not covered cannot be taken back: begin with an empty state "
                "folder, or take privacy.epsilon out.",
            )

    def report(self) -> PrivacySpent:
        """Say how the budget stands."""
        terms = self.terms
        spent = epsilon_of(self._spent, terms.delta)
        return PrivacySpent(terms.epsilon, terms.delta, spent, self.steps, self._left, terms.noise)


def _read(path: Path) -> dict[tuple[float, float], int]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path) from error
    try:
        document = json.loads(text)
        if document["version"] != VERSION:
            raise _damaged(path)
        spent = {(float(row["noise"]), float(row["rate"])): int(row["steps"]) for row in document["spent"]}
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if any(not (noise > 0 and 0 < rate <= 1 and steps > 0) for (noise, rate), steps in spent.items()):
        raise _damaged(path)
    return spent


def _write(path: Path, spent: dict[tuple[float, float], int]) -> None:
    rows: list[dict[str, Any]] = [
        {"noise": noise, "rate": rate, "steps": steps} for (noise, rate), steps in sorted(spent.items())
    ]
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump({"version": VERSION, "spent": rows}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _damaged(path: Path) -> BadData:
    return BadData(
        "privacy.account-damaged",
        f"{path}, which counts what is spent of the privacy budget, cannot be read; bring it back from a backup, "
        "or begin with an empty state folder.",
    )
