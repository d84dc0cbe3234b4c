"""Addresses of members that a device was told of when it joined: where it looks first, beside mDNS and the settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decaf_node.daemon.addresses import split
from decaf_node.daemon.durable import disk_errors, make_folder, write_private

FILE = "seeds"
AT_MOST = 16


def keep_seeds(folder: Path, addresses: Sequence[str]) -> None:
    """Keep the addresses in the members' folder."""
    with disk_errors(folder):
        make_folder(folder)
        write_private(folder / FILE, "".join(f"{address}\n" for address in addresses[:AT_MOST]).encode())


def read_seeds(folder: Path) -> tuple[str, ...]:
    """Return the addresses that were kept; what is none is left out."""
    with disk_errors(folder):
        lines = (folder / FILE).read_text(errors="replace").splitlines() if (folder / FILE).exists() else []
    return tuple(line for line in lines[:AT_MOST] if split(line) is not None)
