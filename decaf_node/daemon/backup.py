"""The key and the certificate of a mesh in one encrypted file: so that the founder's device may be lost.

Three lines: what it is, a salt, and a Fernet token of both as PEM, whose key scrypt (RFC 7914) makes of the passphrase.
The formats that carry keys encrypted, PKCS #8 and #12, would let a guess at the passphrase cost 2,048 rounds of a hash.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from decaf_node.daemon.certificates import pem_of, read_chain
from decaf_node.daemon.durable import disk_errors, write_private
from decaf_node.daemon.identity import load_identity, load_key, private_file
from decaf_node.daemon.papers import AUTHORITY, AUTHORITY_KEY, key_pem
from decaf_node.errors import BadData, NotAllowed, UsageError

SHORTEST = 10  # characters of a passphrase
LIMIT_BYTES = 64 * 1024
MAGIC = b"decaf-node backup 1"
SALT_BYTES = 16
COST = 2**17  # of scrypt, with blocks of 8: 128 MiB and some tenths of a second a guess


def backup(folder: Path, target: Path, passphrase: str) -> None:
    """Write the mesh's certificate and its key, encrypted, to ``target``, which must not be there yet.

    Raises NotAllowed ``backup.not-founder`` or ``backup.there``, UsageError ``backup.short-passphrase``.
    """
    if not (folder / AUTHORITY_KEY).exists():
        raise NotAllowed("backup.not-founder", "This device does not hold the key of a mesh; run this at the founder.")
    if len(passphrase) < SHORTEST:
        raise UsageError("backup.short-passphrase", f"Choose a passphrase of at least {SHORTEST} characters.")
    if os.path.lexists(target):
        raise NotAllowed("backup.there", f"{target} is there already; choose another name.")
    key = load_key(private_file(folder / AUTHORITY_KEY), folder / AUTHORITY_KEY)
    salt = secrets.token_bytes(SALT_BYTES)
    token = _lock(passphrase, salt).encrypt(pem_of((_authority(folder),)) + key_pem(key))
    with disk_errors(target.parent):
        write_private(target, b"\n".join((MAGIC, base64.b64encode(salt), token, b"")))


def restore(folder: Path, source: Path, passphrase: str) -> None:
    """Give this member the key of its mesh from a backup.

    Raises NotAllowed ``restore.other-mesh`` unless it is a member of that mesh, ``restore.wrong-passphrase``; BadData
    ``restore.damaged``.
    """
    load_identity(folder)
    with disk_errors(source.parent):
        lines = source.read_bytes()[:LIMIT_BYTES].splitlines()
    if len(lines) != 3 or lines[0] != MAGIC:
        raise BadData("restore.damaged", f"{source} is no backup of a mesh's key, or damaged.")
    try:
        pem = _lock(passphrase, base64.b64decode(lines[1], validate=True)).decrypt(lines[2])
    except (InvalidToken, ValueError):
        sentence = f"The passphrase is not that of the backup, or {source} is damaged."
        raise NotAllowed("restore.wrong-passphrase", sentence) from None
    authority, key = read_chain(pem, str(source))[0], load_key(pem[pem.rfind(b"-----BEGIN") :], source)
    if not (folder / AUTHORITY).exists() or _authority(folder) != authority:
        raise NotAllowed("restore.other-mesh", "This device is no member of that mesh; let it join first.")
    with disk_errors(folder):
        write_private(folder / AUTHORITY_KEY, key_pem(key))


def _lock(passphrase: str, salt: bytes) -> Fernet:
    key = Scrypt(salt, length=32, n=COST, r=8, p=1).derive(passphrase.encode())
    return Fernet(base64.urlsafe_b64encode(key))


def _authority(folder: Path) -> x509.Certificate:
    return read_chain((folder / AUTHORITY).read_bytes(), str(folder / AUTHORITY))[0]
