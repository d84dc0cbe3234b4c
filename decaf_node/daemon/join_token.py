"""Invitations as one line to paste: which mesh, where it is, how to recognise it, and a secret to get in."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field

from decaf_node.daemon.addresses import split
from decaf_node.errors import UsageError

PREFIX = "decaf1-"
AUTHORITY_BYTES = 32
SECRET_BYTES = 16
CHECK_BYTES = 4
ADDRESSES_AT_MOST = 8
TEXT_BYTES = 255
TOKEN_LIMIT = 4096


@dataclass(frozen=True)
class JoinToken:
    """addresses: of the enrolment listener; authority: sha256 of the mesh's certificate."""

    mesh: str
    addresses: tuple[str, ...]
    authority: bytes
    secret: bytes = field(repr=False)


def write_token(token: JoinToken) -> str:
    """Return the line. Base64url of: authority, secret, texts with their lengths, and a check of all before it."""
    places = [address for address in token.addresses if len(address) <= TEXT_BYTES]
    texts = (token.mesh, *places[:ADDRESSES_AT_MOST])
    data = token.authority + token.secret
    data += b"".join(bytes([len(text.encode())]) + text.encode() for text in texts)
    return PREFIX + base64.urlsafe_b64encode(data + _check(data)).decode().rstrip("=")


def read_token(line: str) -> JoinToken:
    """Return what is in a line that a person has pasted. Raises UsageError ``join.token-damaged``."""
    text = "".join(line[: TOKEN_LIMIT + 1].split())
    if len(text) > TOKEN_LIMIT or not text.startswith(PREFIX):
        raise _damaged(f"it starts with {PREFIX}")
    try:
        code = text.removeprefix(PREFIX)
        data = base64.b64decode(code + "=" * (-len(code) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _damaged("a character of it is wrong or missing") from None
    data, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
    if check != _check(data):
        raise _damaged("a character of it is wrong or missing")
    head, texts = data[: AUTHORITY_BYTES + SECRET_BYTES], _texts(data[AUTHORITY_BYTES + SECRET_BYTES :])
    sound = len(head) == AUTHORITY_BYTES + SECRET_BYTES and 1 <= len(texts) <= ADDRESSES_AT_MOST + 1
    if not sound or not texts[0].isprintable() or any(split(address) is None for address in texts[1:]):
        raise _damaged("another version of decaf-node may have made it")
    return JoinToken(texts[0], tuple(texts[1:]), head[:AUTHORITY_BYTES], head[AUTHORITY_BYTES:])


def _texts(data: bytes) -> list[str]:
    """Return the texts, or none if they do not fill ``data`` exactly."""
    texts, place = [], 0
    while place < len(data):
        end = place + 1 + data[place]
        try:
            texts.append(data[place + 1 : end].decode())
        except UnicodeDecodeError:
            return []
        place = end
    return texts if place == len(data) else []


def _check(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:CHECK_BYTES]


def _damaged(problem: str) -> UsageError:
    return UsageError("join.token-damaged", f"That is no invitation: {problem}; copy the whole line again.")
