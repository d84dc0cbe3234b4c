"""What others say in words: node IDs as they must look, and texts made fit to be printed. Quick to import."""

from __future__ import annotations

import re

NODE_ID = re.compile(r"[A-Z2-7]{52}")


def readable(text: str) -> str:
    """Return what a peer calls something, fit to be printed in one line."""
    return "".join(character if character.isprintable() else " " for character in text)
