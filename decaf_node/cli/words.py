"""How numbers, times and node IDs are written for people."""

from __future__ import annotations

import math
import time

NOTHING = "-"


def short_id(node: str) -> str:
    """Return the first eight characters of a node ID in two readable groups."""
    return f"{node[:4]}-{node[4:8]}" if len(node) > 8 else node


def size(bytes_: int) -> str:
    """Return a number of bytes in decimal units, as network people count them."""
    value = float(bytes_)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def number(value: float | None, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` after the point; very small ones in scientific notation."""
    if value is None or math.isnan(value):
        return NOTHING
    if value != 0 and abs(value) < 10**-digits:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    return NOTHING if share is None or math.isnan(share) else f"{share * 100:.1f} %"


def seconds(value: float) -> str:
    """Return a duration for a column of a table."""
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def clock(seconds_since_1970: float) -> str:
    """Return the local time of day, and the date where that is not today's."""
    then, now = time.localtime(seconds_since_1970), time.localtime()
    today = (then.tm_year, then.tm_yday) == (now.tm_year, now.tm_yday)
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M", then)


def day(seconds_since_1970: float) -> str:
    """Return the local date and time, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds_since_1970))


def count(number: int, what: str) -> str:
    """Return so many of something: ``1 link``, ``1,200 links``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")
