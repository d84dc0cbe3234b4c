"""Which inviter has let each member in: if that inviter is revoked, these stay and no others come."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from decaf_node.daemon.json_file import read_json
from decaf_node.daemon.writer import write_now

FILE = "let-in.json"
REMEMBERED = 1024


class LetIn:
    """Notes members by the certificates that they show; kept in ``folder`` by ``write``."""

    def __init__(self, folder: Path, write: Callable[[Path, bytes], None] = write_now) -> None:
        self._file = folder / FILE
        self._write = write
        self._by: dict[str, tuple[str, ...]] = read_json(self._file, _read, {})

    def note(self, node: str, inviters: tuple[str, ...]) -> None:
        """``node`` has shown a certificate that rests on these inviters (none: the authority itself has signed it)."""
        if self._by.get(node, ()) == inviters:
            return
        self._by[node] = inviters
        if not inviters:
            del self._by[node]
        while len(self._by) > REMEMBERED:
            del self._by[next(iter(self._by))]
        self._write(self._file, json.dumps(self._by).encode())

    def by(self, inviter: str) -> frozenset[str]:
        """Return the members that this inviter has let in, or whose certificates rest on it."""
        return frozenset(node for node, by in self._by.items() if inviter in by)


def _read(document: dict[str, str | list[str]]) -> dict[str, tuple[str, ...]]:
    """Return what was kept; before a certificate could rest on several inviters, it was one text."""
    return {node: (by,) if isinstance(by, str) else tuple(by) for node, by in document.items()}
