"""Which of the processes that use a GPU are not ours, nor a trainer of another node of this device."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

FIRST_NAMESPACE = "pid:[4026531836]"  # the inode that Linux gives the host's own namespace of process IDs
GENERATIONS = 32
TRAINERS = b"decaf_node.training."  # in the command lines of trainers: two nodes would wait for each other for ever


def sees_all_processes() -> bool:
    """Say whether process IDs are here what they are for the driver: not so in a container."""
    try:
        return os.readlink("/proc/self/ns/pid") == FIRST_NAMESPACE
    except OSError:
        return False


def other_users(users: Collection[int], trainer: int) -> list[int]:
    """Return those of the processes that are no trainers.

    Ours descend from this process, or from an external trainer; its other ranks have its command line and its parent.
    """
    ours = {os.getpid(), trainer} - {0}
    return [
        pid for pid in sorted(users) if _lives(pid) and ours.isdisjoint(_line_of(pid)) and not _trains(pid, trainer)
    ]


def _trains(pid: int, trainer: int) -> bool:
    command = _command(pid)
    return TRAINERS in command or (trainer != 0 and (command, _parent(pid)) == (_command(trainer), _parent(trainer)))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _command(pid: int) -> bytes:
    """Return its words, each with a zero byte behind it; nothing where they are hidden."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _line_of(pid: int) -> list[int]:
    """Return the process, its parent, and so on, as far as can be seen: another user's may be hidden."""
    line = [pid]
    while len(line) < GENERATIONS and (parent := _parent(line[-1])) > 1:
        line.append(parent)
    return line


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])  # the name before may hold anything
