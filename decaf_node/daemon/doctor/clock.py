"""The clock: against the calendar, against what is written on this disk, and against the members that answer."""

from __future__ import annotations

import ctypes
import os
import statistics
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from decaf_node.daemon.clock import require_clock
from decaf_node.daemon.doctor.finding import Finding, failure, warning, well
from decaf_node.errors import TryAgain

LAYER, SUBJECT = "clock", "this device's clock"
BACKWARDS_SECONDS = 300.0  # behind what is written on the disk: clocks are set, but seldom by more
DIFFERENCE_SECONDS = 60.0
WRONG_SECONDS = 12 * 3600.0  # certificates are valid from a day before they are signed
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
TIMEX_BYTES = 512  # more than struct timex has anywhere


def look_at_clock(now: float, newest_stamp: float, ahead_of: Sequence[float], expired_at: str) -> list[Finding]:
    """Judge the clock.

    newest_stamp: of what this node has written, seconds since 1970; 0 if nothing
    ahead_of:     by how much this clock is ahead of each member's that answers
    expired_at:   the address of a member that shows a certificate which has expired by this clock; empty if none does
    """
    shown = f"{datetime.fromtimestamp(now, timezone.utc):%Y-%m-%d %H:%M} UTC"
    try:
        require_clock(now)
    except TryAgain as error:
        return [failure(LAYER, SUBJECT, error)]
    if now < newest_stamp - BACKWARDS_SECONDS:
        written = f"{datetime.fromtimestamp(newest_stamp, timezone.utc):%Y-%m-%d %H:%M} UTC"
        behind = f"It says {shown}, and this node has written files at {written}: the clock has gone back; set it."
        return [failure(LAYER, SUBJECT, TryAgain("clock.behind", behind))]
    agrees = any(abs(ahead) < DIFFERENCE_SECONDS for ahead in ahead_of)
    if expired_at and not agrees:
        ahead = (
            f"It says {shown}, and by that the certificate of the member at {expired_at}, which is running, has "
            "expired, though members renew theirs long before: this clock is ahead; set it."
        )
        return [failure(LAYER, SUBJECT, TryAgain("clock.ahead", ahead))]
    return _against_members(shown, statistics.median(ahead_of) if ahead_of else 0.0, len(ahead_of))


def _against_members(shown: str, ahead: float, members: int) -> list[Finding]:
    far = f"It says {shown}, {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the members that answer."
    if abs(ahead) > WRONG_SECONDS:
        return [failure(LAYER, SUBJECT, TryAgain("clock.differs", far))]
    if abs(ahead) > DIFFERENCE_SECONDS:
        return [warning(LAYER, SUBJECT, "clock.differs", far)]
    if not members and not is_synchronised():
        alone = f"It says {shown}, and nothing keeps it right: the kernel calls it not synchronised."
        return [warning(LAYER, SUBJECT, "clock.not-synchronised", alone)]
    return [well(LAYER, SUBJECT, f"{shown}" + (f", as {members} members have it" if members > 1 else ""))]


def is_synchronised() -> bool:
    """Tell whether a time service keeps this clock, as far as the kernel knows: adjtimex(2), which changes nothing."""
    return bool(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES)) not in (TIME_ERROR, -1))


def newest_stamp(state: Path) -> float:
    """Return when this node has last written something, seconds since 1970; 0 if never or it cannot be seen."""
    try:
        return max((entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(state)), default=0.0)
    except OSError:
        return 0.0
