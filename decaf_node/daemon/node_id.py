"""Node IDs: the hash of a public key, and how people read it, compare it and type it."""

from __future__ import annotations

import base64
import hashlib
import re

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from decaf_node.errors import UsageError

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"  # base32, RFC 4648
LENGTH = 52
PART = 13  # characters that share a check digit
GROUP = 4
TYPED_LIMIT = 200
FULL = re.compile(rf"[{ALPHABET}]{{{LENGTH}}}")


def node_of(public: PublicKeyTypes) -> str:
    """Return the node ID of a key: base32 of the sha256 of its DER SubjectPublicKeyInfo, 52 characters."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b32encode(hashlib.sha256(der).digest()).decode().rstrip("=")


def short(node: str) -> str:
    """Return the node ID as people speak of it: its first eight characters, ``XXXX-XXXX``."""
    return f"{node[:4]}-{node[4:8]}"


def printed(node: str) -> str:
    """Return the whole node ID in groups of four. Every fourteenth character checks the thirteen before it.

    Source: the check digits are Luhn's algorithm over 32 symbols, which sees any one wrong character and most swaps.
    """
    parts = [node[start : start + PART] for start in range(0, LENGTH, PART)]
    text = "".join(part + check_digit(part) for part in parts)
    return "-".join(text[start : start + GROUP] for start in range(0, len(text), GROUP))


def read_node(typed: str) -> str:
    """Return the node ID that a person has typed or pasted: printed with its check digits, or bare.

    Raises UsageError ``node.mistyped``.
    """
    text = re.sub(r"[\s-]", "", typed[:TYPED_LIMIT]).upper()
    if FULL.fullmatch(text):
        return text
    parts = [text[start : start + PART + 1] for start in range(0, len(text), PART + 1)]
    node = "".join(part[:PART] for part in parts)
    if FULL.fullmatch(node) is None or any(part[PART:] != check_digit(part[:PART]) for part in parts):
        raise UsageError(
            "node.mistyped", "That is no node ID: some character is wrong or missing; copy it from `decaf-node status`."
        )
    return node


def check_digit(part: str) -> str:
    """Return the character that makes the Luhn sum of ``part`` and it a multiple of 32."""
    size = len(ALPHABET)
    total = 0
    for place, character in enumerate(reversed(part)):
        value = ALPHABET.index(character) * (2 - place % 2)
        total += value // size + value % size
    return ALPHABET[-total % size]
