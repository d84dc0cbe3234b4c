"""The key of a mesh, encrypted, in one file: so that the founder's device may be lost."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from decaf_node.daemon.certificates import read_chain
from decaf_node.daemon.durable import disk_errors, write_private
from decaf_node.daemon.identity import load_identity, load_key, private_file
from decaf_node.daemon.node_id import node_of
from decaf_node.daemon.papers import AUTHORITY, AUTHORITY_KEY, key_pem
from decaf_node.errors import BadData, NotAllowed, UsageError

SHORTEST = 10  # characters of a passphrase
LIMIT_BYTES = 64 * 1024


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
    with disk_errors(target.parent):
        write_private(target, (folder / AUTHORITY).read_bytes() + key_pem(key, passphrase.encode()))


def restore(folder: Path, source: Path, passphrase: str) -> None:
    """Give this member the key of its mesh from a backup.

    Raises NotAllowed ``restore.other-mesh`` unless it is a member of that mesh, ``restore.wrong-passphrase``; BadData
    ``restore.damaged`` or ``certificate.damaged``.
    """
    load_identity(folder)
    with disk_errors(source.parent):
        pem = source.read_bytes()[:LIMIT_BYTES]
    authority = read_chain(pem, str(source))[0]
    if not (folder / AUTHORITY).exists() or read_chain((folder / AUTHORITY).read_bytes(), AUTHORITY)[0] != authority:
        raise NotAllowed("restore.other-mesh", "This device is no member of that mesh; let it join first.")
    try:
        private = serialization.load_pem_private_key(pem[pem.find(b"-----BEGIN ENCRYPTED") :], passphrase.encode())
    except ValueError:
        raise NotAllowed("restore.wrong-passphrase", "The passphrase is not that of the backup.") from None
    except (TypeError, UnsupportedAlgorithm):
        raise BadData("restore.damaged", f"{source} holds no encrypted key; it is no backup, or damaged.") from None
    if node_of(private.public_key()) != node_of(authority.public_key()):
        raise BadData("restore.damaged", f"The key in {source} is not that of the certificate in it.")
    plain = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with disk_errors(folder):
        write_private(folder / AUTHORITY_KEY, plain)
