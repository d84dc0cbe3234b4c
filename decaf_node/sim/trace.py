"""What happened: one hash over all of it, and the last events as text that a person can read."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import fields

from decaf_node.mesh.events import Effect, Event

REMEMBERED = 60


class Trace:
    """Equal hashes mean equal runs, whatever the hash seed of Python."""

    def __init__(self) -> None:
        self.steps = 0
        self._hash = hashlib.blake2b(digest_size=16)
        self._last: deque[tuple[float, str, object, Sequence[object]]] = deque(maxlen=REMEMBERED)

    def note(self, now: float, device: str, event: Event | str, effects: Sequence[Effect] = ()) -> None:
        """An event at a device and what it led to; a string is something that struck from outside."""
        self.steps += 1
        name = event if isinstance(event, str) else type(event).__name__
        self._hash.update(f"{now!r} {device} {name} {getattr(event, 'peer', '')} {len(effects)}\n".encode())
        self._last.append((now, device, event, effects))

    def digest(self) -> str:
        """Return the hash of all that was noted, hex."""
        return self._hash.hexdigest()

    def transcript(self) -> list[str]:
        """Return the last events, oldest first: time in seconds, device, event, and the effects below it."""
        lines = []
        for now, device, event, effects in self._last:
            lines.append(f"{now:10.3f}  {device:<6} {event if isinstance(event, str) else _words(event)}")
            lines += [f"{'':10}  {'':6}   -> {_words(effect)}" for effect in effects]
        return lines


def _words(thing: object) -> str:
    """Write a dataclass in one line, leaving out what is empty, and the news of members: they are long."""
    named = [(field.name, getattr(thing, field.name)) for field in fields(thing)]  # type: ignore[arg-type]
    said = ", ".join(f"{name}={value!r}" for name, value in named if value not in ("", (), None) and name != "news")
    return f"{type(thing).__name__}({said})"
