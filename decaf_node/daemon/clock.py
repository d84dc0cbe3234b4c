"""Whether this device knows what day it is: without a clock battery it starts in 1970, and certificates seem wrong."""

from __future__ import annotations

from datetime import datetime, timezone

from decaf_node.errors import TryAgain

EARLIEST = 1_704_067_200  # 2024-01-01: this program is younger


def require_clock(now: float) -> None:
    """Raise TryAgain ``clock.not-set`` if ``now`` (seconds since 1970) cannot be."""
    if now < EARLIEST:
        raise TryAgain(
            "clock.not-set",
            f"The clock of this device says {datetime.fromtimestamp(now, timezone.utc):%Y-%m-%d}, so no certificate "
            "can be checked; set it (`timedatectl set-ntp true`, or `date -s`) and try again.",
        )
