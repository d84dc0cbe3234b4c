"""An independent witness: Debian's avahi, on a host of its own with its own bus, sees who announces himself."""

from __future__ import annotations

import subprocess

from tests.daemon.network_lab import within

SCRIPT = """
mount -t tmpfs none /run && mkdir /run/dbus && dbus-daemon --system --fork &&
avahi-daemon --daemonize --no-chroot --no-drop-root --no-rlimits >/dev/null 2>&1 &&
avahi-browse --resolve --terminate --parsable --no-db-lookup _decaf-node._tcp
"""


def seen_by_avahi(host: str) -> dict[str, str]:
    """Return the IPv4 addresses of those who announce themselves, by node ID."""
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    done = subprocess.run(
        [*within(host), *alone, "sh", "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    fields = (line.split(";") for line in done.stdout.splitlines() if line.startswith("="))
    return {field[3]: field[7] for field in fields if field[2] == "IPv4"}
