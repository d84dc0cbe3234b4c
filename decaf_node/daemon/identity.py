"""Who this node is: an ECDSA P-256 key made once, and the node ID that follows from it."""

from __future__ import annotations

import fcntl
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
from decaf_node.daemon.node_id import node_of
from decaf_node.errors import BadSettings, NotAllowed

KEY = "key.pem"
KEY_LIMIT_BYTES = 16 * 1024
OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Identity:
    """node: the hash of the public key; see ``node_id``. The key never leaves this device."""

    node: str
    private_key_pem: bytes = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)


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
                write_private(key, new_identity().private_key_pem)
            _refuse_if_open(folder, WRITABLE_BY_OTHERS, "700")
            return _identity(private_file(key), key)


def new_identity() -> Identity:
    """Make an identity that is kept nowhere yet."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Identity(node_of(key.public_key()), pem, key)


def keep_identity(folder: Path, identity: Identity) -> None:
    """Keep a new identity. Raises NotAllowed ``identity.there`` where there is one, and what ``load_identity`` does."""
    with disk_errors(folder):
        make_folder(folder)
        with _alone(folder):
            if os.path.lexists(folder / KEY):
                raise NotAllowed("identity.there", f"There is an identity in {folder} already; it is never replaced.")
            write_private(folder / KEY, identity.private_key_pem)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _identity(pem: bytes, path: Path) -> Identity:
    private = load_key(pem, path)
    return Identity(node_of(private.public_key()), pem, private)


def private_file(path: Path) -> bytes:
    """Return what a file for the owner alone holds.

    Raises NotAllowed ``identity.too-open`` if others could read it, BadSettings ``identity.damaged`` if it is no file.
    """
    if not _is_credential(path):
        _refuse_if_open(path, OPEN_TO_OTHERS, "600")
    if not path.is_file():
        raise _damaged(path, "it is not a file")
    with path.open("rb") as file:
        return file.read(KEY_LIMIT_BYTES)


def load_key(pem: bytes, path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the ECDSA P-256 key in ``pem``, read from ``path``. Raises BadSettings ``identity.damaged``."""
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _damaged(path, "no private key can be read from it") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise _damaged(path, "it holds another kind of key than ECDSA P-256")
    return private


def _is_credential(path: Path) -> bool:
    """Say whether systemd has given us the file (LoadCredential): it lets nobody else in, by an access control list."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return folder is not None and path.parent == Path(folder)


def _refuse_if_open(path: Path, forbidden: int, wanted: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & forbidden:
        raise NotAllowed(
            "identity.too-open",
            f"{path} is open to other users (mode {mode:o}); if nobody can have copied or changed the key, "
            f"run: chmod {wanted} {path}",
        )


def _damaged(key: Path, problem: str) -> BadSettings:
    return BadSettings(
        "identity.damaged",
        f"The node's key {key} is damaged: {problem}; restore it from a copy, or remove it to become a new node.",
    )
