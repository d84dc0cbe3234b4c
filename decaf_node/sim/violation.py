"""What a run ends with where something does not hold."""

from __future__ import annotations


class Violation(Exception):
    """A check has failed. check: its short name, the same for ever."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check
        self.message = message
