"""The one exception tree. Every error a person may see has a stable reason ID and an exit code by kind.

Reason IDs read ``part.what-is-wrong`` (``data.column-missing``) and never change once released. The message is
one sentence: what is wrong, where, and what to do about it.
"""

from __future__ import annotations


class DecafError(Exception):
    """Anything that decaf-node says to a person instead of a traceback."""

    exit_code = 70

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)  # both, so that it comes through between processes
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} [{self.reason}]"


class UsageError(DecafError):
    """The command line does not fit."""

    exit_code = 64


class BadData(DecafError):
    """A model, a data file, a snapshot or a number in it is not usable."""

    exit_code = 65


class DaemonUnreachable(DecafError):
    """No daemon answers on the control socket."""

    exit_code = 69


class Bug(DecafError):
    """Something that cannot happen has happened."""

    exit_code = 70


class TryAgain(DecafError):
    """It may work later as it is: a full disk, a busy port, a second daemon on one state folder."""

    exit_code = 75


class NotAllowed(DecafError):
    """Refused on purpose: permissions, or something that must be turned on first."""

    exit_code = 77


class BadSettings(DecafError):
    """The settings, or what they point to, do not fit; a restart cannot help."""

    exit_code = 78


KINDS: dict[int, type[DecafError]] = {
    kind.exit_code: kind for kind in (UsageError, BadData, DaemonUnreachable, Bug, TryAgain, NotAllowed, BadSettings)
}


def from_exit_code(exit_code: int, reason: str, message: str) -> DecafError:
    """Rebuild an error that another process has told us of."""
    return KINDS.get(exit_code, Bug)(reason, message)
