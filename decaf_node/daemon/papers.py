"""What a node shows and signs with: its certificate, the authorities it believes, and the key of one it may sign with.

They lie in the identity folder, or where ``[security]`` says when an outside authority is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from decaf_node.daemon.certificates import (
    Chain,
    Issuer,
    Key,
    check_chain,
    check_time,
    found_authority,
    issue_member,
    pem_of,
    read_chain,
)
from decaf_node.daemon.durable import disk_errors, write_private
from decaf_node.daemon.identity import Identity, load_key, private_file
from decaf_node.daemon.node_id import node_of
from decaf_node.errors import BadData, BadSettings, NotAllowed
from decaf_node.settings import SecuritySection

CERTIFICATE, AUTHORITY, AUTHORITY_KEY, INVITER = "certificate.pem", "ca.pem", "ca-key.pem", "inviter.pem"


@dataclass(frozen=True)
class Papers:
    """chain: this node's certificate first; authorities: who signs members; issuer: with what this node may sign."""

    node: str
    key_pem: bytes = field(repr=False)
    chain: Chain
    authorities: Chain
    issuer: Issuer | None = None

    @property
    def authority(self) -> bytes:
        """The authorities as PEM."""
        return pem_of(self.authorities)

    @property
    def is_founder(self) -> bool:
        """It holds the authority's key."""
        return self.issuer is not None and not self.issuer.below


def is_member(folder: Path) -> bool:
    """Tell whether the node with this identity folder belongs to a mesh."""
    return (folder / CERTIFICATE).exists()


def has_expired(folder: Path, now: float) -> bool:
    """Tell whether the certificate in this identity folder is worth nothing any more, so that it may be replaced."""
    try:
        check_time(read_chain((folder / CERTIFICATE).read_bytes(), CERTIFICATE)[0], now)
    except NotAllowed as error:
        return error.reason == "certificate.expired"
    return False


def load_papers(folder: Path, identity: Identity, now: float) -> Papers:
    """Return the papers in the identity folder.

    Raises NotAllowed ``security.no-certificate`` where there are none, or what ``check_chain`` raises; BadData
    ``certificate.damaged``; BadSettings ``certificate.other-key``; what ``private_file`` raises.
    """
    if not is_member(folder):
        raise NotAllowed(
            "security.no-certificate",
            "This node belongs to no mesh yet; found one with `decaf-node init`, or join one with `decaf-node join`. "
            "To try it without encryption on this machine alone, start it with --insecure.",
        )
    with disk_errors(folder):
        chain = read_chain((folder / CERTIFICATE).read_bytes(), str(folder / CERTIFICATE))
        authority = read_chain((folder / AUTHORITY).read_bytes(), str(folder / AUTHORITY))
        _demand_key(chain, identity.node, folder / CERTIFICATE)
        try:
            check_chain(chain, authority[0], now)
        except NotAllowed as error:
            if error.reason != "certificate.expired":
                raise
            raise NotAllowed(error.reason, f"{error.message} Ask for an invitation, and join again.") from None
        return Papers(identity.node, identity.private_key_pem, chain, authority, _issuer(folder, identity, authority))


def outside_papers(section: SecuritySection, now: float) -> Papers:
    """Return the papers that an outside authority has signed.

    Raises BadSettings ``certificate.missing`` or ``certificate.other-key``; BadData ``certificate.damaged``; NotAllowed
    ``certificate.expired`` or ``certificate.not-yet-valid``; what ``private_file`` raises.
    """
    assert section.ca is not None, "asked for only where it is set"
    assert section.certificate is not None
    assert section.key is not None
    for path in (section.ca, section.certificate, section.key):
        if not path.is_file():
            raise BadSettings("certificate.missing", f"[security] names {path}, and there is no such file.")
    with disk_errors(section.certificate.parent):
        chain = read_chain(section.certificate.read_bytes(), str(section.certificate))
        authorities = read_chain(section.ca.read_bytes(), str(section.ca))
        pem = private_file(section.key)
    try:
        node = node_of(serialization.load_pem_private_key(pem, password=None).public_key())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadData("certificate.damaged", f"{section.key} holds no private key without a passphrase.") from None
    _demand_key(chain, node, section.certificate)
    check_time(chain[0], now)
    return Papers(node, pem, chain, authorities)


def found_mesh(folder: Path, identity: Identity, mesh: str, now: float, seconds: float) -> Papers:
    """Make the authority of a new mesh and this node's certificate, and keep both."""
    authority = found_authority(mesh, now)
    chain = issue_member(authority, identity.key.public_key(), now, seconds)
    with disk_errors(folder):
        write_private(folder / AUTHORITY_KEY, key_pem(authority.key))
        keep_papers(folder, chain, (authority.certificate,))
    return Papers(identity.node, identity.private_key_pem, chain, (authority.certificate,), authority)


def keep_papers(folder: Path, chain: Chain, authorities: Chain) -> None:
    """Keep a new certificate; what makes the node a member is written last.

    Raises NotAllowed ``certificate.other-mesh`` if the folder is of another mesh.
    """
    with disk_errors(folder):
        if (folder / AUTHORITY).exists() and (folder / AUTHORITY).read_bytes() != pem_of(authorities):
            raise NotAllowed(
                "certificate.other-mesh", f"{folder} is of another mesh; use a new state folder for this one (--state)."
            )
        write_private(folder / AUTHORITY, pem_of(authorities))
        write_private(folder / CERTIFICATE, pem_of(chain))


def keep_inviter(folder: Path, chain: Chain) -> None:
    """Keep the certificate with which this node may let others in."""
    with disk_errors(folder):
        write_private(folder / INVITER, pem_of(chain))


def key_pem(key: Key) -> bytes:
    """Return a key as text, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _issuer(folder: Path, identity: Identity, authorities: Chain) -> Issuer | None:
    if (folder / AUTHORITY_KEY).exists():
        key = load_key(private_file(folder / AUTHORITY_KEY), folder / AUTHORITY_KEY)
        if node_of(key.public_key()) != node_of(authorities[0].public_key()):
            raise BadSettings(
                "certificate.other-key",
                f"{folder / AUTHORITY_KEY} is not the key of {AUTHORITY}; restore the right one.",
            )
        return Issuer(authorities[0], key)
    if (folder / INVITER).exists():
        chain = read_chain((folder / INVITER).read_bytes(), str(folder / INVITER))
        _demand_key(chain, identity.node, folder / INVITER)
        return Issuer(chain[0], identity.key, chain[:1])
    return None


def _demand_key(chain: Chain, node: str, path: Path) -> None:
    if node_of(chain[0].public_key()) != node:
        raise BadSettings(
            "certificate.other-key",
            f"The certificate {path} is for another key than this node's; restore the right one.",
        )
