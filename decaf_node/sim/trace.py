"""What happened: one hash over all of it, and the last events as text that a person can read."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import fields

from decaf_node.mesh.events import Effect, Event

REMEMBERED = 60
BLOCK = 64  # events that are hashed at once: one by one that costs more than all that is noted

Noted = tuple[float, str, object, Sequence[object]]


class Trace:
    """Equal hashes mean equal runs, whatever the hash seed of Python."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._blocks = 0
        self._before: list[Noted] = []  # the block before, which is hashed already
        self._block: list[Noted] = []

    def note(self, now: float, device: str, event: Event | str, effects: Sequence[Effect] = ()) -> None:
        """An event at a device and what it led to; a string is something that struck from outside."""
        block = self._block
        block.append((now, device, event, effects))
        if len(block) == BLOCK:
            self._hash.update(_bytes(block))
            self._blocks += 1
            self._before, self._block = block, []

    @property
    def steps(self) -> int:
        """Return how many events were noted."""
        return self._blocks * BLOCK + len(self._block)

    def digest(self) -> str:
        """Return the hash of all that was noted, hex."""
        whole = self._hash.copy()
        whole.update(_bytes(self._block))
        return whole.hexdigest()

    def transcript(self) -> list[str]:
        """Return the last events, oldest first: time in seconds, device, event, and the effects below it."""
        lines = []
        for now, device, event, effects in (*self._before, *self._block)[-REMEMBERED:]:
            lines.append(f"{now:10.3f}  {device:<6} {event if isinstance(event, str) else _words(event)}")
            lines += [f"{'':10}  {'':6}   -> {_words(effect)}" for effect in effects]
        return lines


def _bytes(noted: Sequence[Noted]) -> bytes:
    """Return what is hashed: when, where, what, with whom, and how much it led to."""
    times = struct.pack(f"<{len(noted)}d", *[now for now, _, _, _ in noted])
    words = [
        f"{device} {event if isinstance(event, str) else type(event).__name__} {getattr(event, 'peer', '')} {len(led)}"
        for _, device, event, led in noted
    ]
    return times + "\n".join(words).encode()


def _words(thing: object) -> str:
    """Write a dataclass in one line, leaving out what is empty, and the news of members: they are long."""
    named = [(field.name, getattr(thing, field.name)) for field in fields(thing)]  # type: ignore[arg-type]
    said = ", ".join(f"{name}={value!r}" for name, value in named if value not in ("", (), None) and name != "news")
    return f"{type(thing).__name__}({said})"
