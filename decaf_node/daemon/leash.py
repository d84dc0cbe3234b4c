"""``python -m decaf_node.daemon.leash PARENT ARGUMENTS...``: become ``python ARGUMENTS...``, and die with the parent.

The daemon starts its trainer so: a child that sets this itself would do it only after its slow imports.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; kept over execve


def main(parent: int, arguments: list[str]) -> None:
    """Ask the kernel for SIGKILL when the daemon's thread that started us ends, and go on as the trainer."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)  # it was gone before we asked
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - what our parent has asked for, no shell


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
