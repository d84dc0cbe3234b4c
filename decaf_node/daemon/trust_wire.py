"""Revocations as bytes: protobuf to and from plain values, checked before any use."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from decaf_node.daemon.node_id import FULL
from decaf_node.errors import BadData
from decaf_node.v1 import mesh_pb2 as pb

REVOKED_LIMIT = 1024
KEPT_LIMIT = 1024
NUMBER_LIMIT = 2**53
BODY_LIMIT_BYTES = 1024 * 1024
SIGNATURE_LIMIT_BYTES = 256


@dataclass(frozen=True)
class Signed:
    """A list as it travels."""

    body: bytes
    signature: bytes


@dataclass(frozen=True)
class Revoked:
    """One member that was put out, when, and whom it had let in before."""

    node: str
    time: int
    kept: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Body:
    """What is signed; see ``RevocationsBody`` in mesh.proto."""

    authority: bytes
    number: int
    revoked: tuple[Revoked, ...]


def write_body(body: Body) -> bytes:
    """Return the bytes that are signed. Raises BadData ``revocations.full`` if there are too many."""
    revoked = [pb.Revoked(node=entry.node, time=entry.time, kept=sorted(entry.kept)) for entry in body.revoked]
    data = pb.RevocationsBody(authority=body.authority, number=body.number, revoked=revoked).SerializeToString()
    if len(revoked) > REVOKED_LIMIT or len(data) > BODY_LIMIT_BYTES:
        raise BadData(
            "revocations.full", "Too many members have been revoked; found a new mesh, and invite those that stay."
        )
    return data


def read_body(data: bytes) -> Body:
    """Return what is signed. Raises BadData ``revocations.damaged``."""
    message = pb.RevocationsBody()
    _parse(message, data)
    sound = 0 < message.number <= NUMBER_LIMIT and len(message.revoked) <= REVOKED_LIMIT
    if not sound or not all(_is_sound(entry) for entry in message.revoked):
        raise _damaged()
    revoked = (Revoked(entry.node, entry.time, frozenset(entry.kept)) for entry in message.revoked)
    return Body(message.authority, message.number, tuple(revoked))


def write_signed(signed: Signed) -> bytes:
    """Return a list as bytes, for a file."""
    return signed_to_wire(signed).SerializeToString()


def read_signed(data: bytes) -> Signed:
    """Return a list that was kept in a file. Raises BadData ``revocations.damaged``."""
    message = pb.Revocations()
    _parse(message, data)
    return signed_from_wire(message)


def signed_to_wire(signed: Signed) -> pb.Revocations:
    """Return the protobuf message for a list."""
    return pb.Revocations(body=signed.body, signature=signed.signature)


def signed_from_wire(message: pb.Revocations) -> Signed:
    """Return the list in ``message``. Raises BadData ``revocations.damaged``."""
    if len(message.body) > BODY_LIMIT_BYTES or len(message.signature) > SIGNATURE_LIMIT_BYTES:
        raise _damaged()
    return Signed(message.body, message.signature)


def _parse(message: pb.Revocations | pb.RevocationsBody, data: bytes) -> None:
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise _damaged() from None


def _is_sound(entry: pb.Revoked) -> bool:
    nodes = (entry.node, *entry.kept)
    return len(nodes) <= KEPT_LIMIT + 1 and all(FULL.fullmatch(node) for node in nodes)


def _damaged() -> BadData:
    return BadData("revocations.damaged", "A list of revocations cannot be read.")
