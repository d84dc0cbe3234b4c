"""Who this node is: an ECDSA P-256 key made at its first start, and the node ID that follows from it."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from decaf_node.daemon.durable import disk_errors, make_folder, write_private
from decaf_node.errors import BadSettings, NotAllowed

KEY = "key.pem"
KEY_LIMIT_BYTES = 16 * 1024
OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Identity:
    """node: base32 of the sha256 of the public key (DER SubjectPublicKeyInfo), 52 characters."""

    node: str
    private_key_pem: bytes = field(repr=False)


def load_identity(folder: Path) -> Identity:
    """Return the identity kept in ``folder``; make it, durably, where there is none yet.

    A key that is there is never replaced. One that others could read is refused, not mended: it may have been
    copied, and only a person can know. Two processes that start at once get the same identity.
    Raises BadSettings ``identity.damaged``; NotAllowed ``identity.too-open`` or ``disk.forbidden``; TryAgain
    ``disk.full`` or ``disk.failed``.
    """
    with disk_errors(folder):
        make_folder(folder)
        with _alone(folder):
            key = folder / KEY
            if not os.path.lexists(key):
                write_private(key, _new_key())
            _refuse_if_open(folder, WRITABLE_BY_OTHERS, "700")
            _refuse_if_open(key, OPEN_TO_OTHERS, "600")
            return _identity(key)


def short(node: str) -> str:
    """Return the node ID as people read it: its first eight characters, ``XXXX-XXXX``."""
    return f"{node[:4]}-{node[4:8]}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _refuse_if_open(path: Path, forbidden: int, wanted: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & forbidden:
        raise NotAllowed(
            "identity.too-open",
            f"{path} is open to other users (mode {mode:o}); if nobody can have copied or changed the key, "
            f"run: chmod {wanted} {path}",
        )


def _identity(key: Path) -> Identity:
    if not key.is_file():
        raise _damaged(key, "it is not a file")
    with key.open("rb") as file:
        pem = file.read(KEY_LIMIT_BYTES)
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _damaged(key, "no private key can be read from it") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise _damaged(key, "it holds another kind of key than ECDSA P-256")
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Identity(base64.b32encode(hashlib.sha256(public).digest()).decode().rstrip("="), pem)


def _damaged(key: Path, problem: str) -> BadSettings:
    return BadSettings(
        "identity.damaged",
        f"The node's key {key} is damaged: {problem}; restore it from a copy, or remove it to become a new node.",
    )
