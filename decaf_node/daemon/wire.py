"""The frames between nodes: protobuf to and from plain values. Whatever comes in is checked here, before any use."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from decaf_node.daemon.texts import NODE_ID, readable
from decaf_node.errors import BadData
from decaf_node.link import LABELS_LIMIT
from decaf_node.mesh.events import Offer, Receipt, Snapshot
from decaf_node.v1 import mesh_pb2 as pb

VERSION, OLDEST_VERSION = 1, 1  # of the protocol: the newest and the oldest that this node speaks
INSTANCE = re.compile(r"[0-9a-f]{16}|")
FINGERPRINT = re.compile(r"[0-9a-f]{64}|")
REASON = re.compile(r"[a-z0-9.-]{1,64}")
NAME_LIMIT = 255
ADDRESS_LIMIT = 300
MESSAGE_LIMIT = 1000
COUNT_LIMIT = 2**53  # of rounds, mixes and bytes: exact in JSON, sqlite and a float
PARTS_TOLERANCE = 1e-3  # of the sum of so many float32
DIGEST_BYTES = 32
CHUNK_LIMIT_BYTES = 1024 * 1024  # as mesh.proto says
MESSAGE_LIMIT_BYTES = 2 * 1024 * 1024  # of a gRPC message: one chunk and what surrounds it


@dataclass(frozen=True)
class Introduction:
    """Who speaks; see ``Introduction`` in mesh.proto. It is believed only as far as ``Security`` knows the speaker."""

    node: str
    name: str
    mesh: str
    schema: str
    round: int
    address: str
    version: int = VERSION
    oldest_version: int = OLDEST_VERSION
    instance: str = ""
    revocations: int = 0
    loss: float | None = None
    base: str = ""
    label_parts: tuple[float, ...] = ()


@dataclass(frozen=True)
class Want:
    """Asks for the bytes of an offered snapshot, from ``offset`` on."""

    digest: str
    offset: int


@dataclass(frozen=True)
class Chunk:
    """Bytes of the snapshot that was asked for."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class Refusal:
    """Why there will be no edge now."""

    reason: str
    message: str


Frame: TypeAlias = Introduction | Offer | Want | Chunk | Receipt | Refusal


def encode(frame: Frame) -> pb.Frame:
    """Return the protobuf message for ``frame``."""
    match frame:
        case Introduction():
            return pb.Frame(introduction=introduction_to_wire(frame))
        case Offer():
            return pb.Frame(offer=_offer_to_wire(frame))
        case Want(digest, offset):
            return pb.Frame(want=pb.Want(digest=bytes.fromhex(digest), offset_bytes=offset))
        case Chunk(offset, data):
            message = pb.Frame()
            message.chunk.offset_bytes, message.chunk.data = offset, data  # copied once; by constructors twice
            return message
        case Receipt(own, theirs, weight):
            receipt = pb.Receipt(own=bytes.fromhex(own), theirs=bytes.fromhex(theirs), weight=weight)
            return pb.Frame(receipt=receipt)
        case Refusal(reason, message):
            return pb.Frame(refusal=pb.Refusal(reason=reason, message=message[:MESSAGE_LIMIT]))


def decode(message: pb.Frame) -> Frame:
    """Return the frame in ``message``. Raises BadData (``mesh.bad-frame``) if anything in it is out of bounds."""
    match message.WhichOneof("kind"):
        case "introduction":
            return introduction_from_wire(message.introduction)
        case "offer":
            return _offer_from_wire(message.offer)
        case "want":
            return Want(_digest(message.want.digest), message.want.offset_bytes)
        case "chunk":
            data = message.chunk.data  # a copy
            _demand(0 < len(data) <= CHUNK_LIMIT_BYTES, "a chunk of a size out of bounds")
            return Chunk(message.chunk.offset_bytes, data)
        case "receipt":
            weight = message.receipt.weight
            _demand(math.isfinite(weight) and 0 <= weight <= 1, "a weight out of bounds")
            return Receipt(_digest(message.receipt.own), _digest(message.receipt.theirs), weight)
        case "refusal":
            _demand(REASON.fullmatch(message.refusal.reason) is not None, "a reason that is not one")
            return Refusal(message.refusal.reason, readable(message.refusal.message[:MESSAGE_LIMIT]))
        case _:
            raise bad_frame("a frame of an unknown kind")


def introduction_to_wire(introduction: Introduction) -> pb.Introduction:
    """Return the protobuf message for an introduction."""
    return pb.Introduction(
        version=introduction.version,
        oldest_version=introduction.oldest_version,
        instance=introduction.instance,
        revocations=introduction.revocations,
        node=introduction.node,
        name=introduction.name,
        mesh=introduction.mesh,
        schema=introduction.schema,
        round=introduction.round,
        address=introduction.address,
        loss=introduction.loss,
        base=introduction.base,
        label_parts=introduction.label_parts,
    )


def introduction_from_wire(message: pb.Introduction) -> Introduction:
    """Return the introduction in ``message``. Raises BadData (``mesh.bad-frame``)."""
    _demand(NODE_ID.fullmatch(message.node) is not None, "a node ID that is none")
    _demand(FINGERPRINT.fullmatch(message.schema) is not None, "a schema that is no fingerprint")
    _demand(FINGERPRINT.fullmatch(message.base) is not None, "a base model that is no fingerprint")
    _demand(len(message.mesh) <= NAME_LIMIT and len(message.address) <= ADDRESS_LIMIT, "a text out of bounds")
    _demand(message.address.isprintable(), "an address that cannot be printed")
    _demand(max(message.round, message.revocations) <= COUNT_LIMIT, "a round or number out of bounds")
    _demand(INSTANCE.fullmatch(message.instance) is not None, "an instance that is none")
    _demand(message.oldest_version <= message.version, "versions that contradict each other")
    _demand(math.isfinite(message.loss), "a loss that is no number")
    _demand(not message.label_parts or are_parts(message.label_parts), "parts of labels that are none")
    return Introduction(
        node=message.node,
        name=readable(message.name[:NAME_LIMIT]),
        mesh=message.mesh,
        schema=message.schema,
        round=message.round,
        address=message.address,
        version=message.version,
        oldest_version=message.oldest_version or message.version,
        instance=message.instance,
        revocations=message.revocations,
        loss=message.loss if message.HasField("loss") else None,
        base=message.base,
        label_parts=tuple(message.label_parts),
    )


def are_parts(parts: Sequence[float]) -> bool:
    """Say whether these can be the parts that labels have of something, and are not too many."""
    return len(parts) <= LABELS_LIMIT and min(parts, default=-1.0) >= 0 and abs(sum(parts) - 1) <= PARTS_TOLERANCE


def check_version(who: Introduction) -> None:
    """Raise BadData (``mesh.other-version``) unless there is a protocol version that we both speak."""
    if who.oldest_version > VERSION or who.version < OLDEST_VERSION:
        ours = _versions(OLDEST_VERSION, VERSION)
        theirs = _versions(who.oldest_version, who.version)
        raise BadData(
            "mesh.other-version",
            f"This node speaks {ours} of the protocol and {who.name or who.node[:8]} speaks {theirs}; "
            "update the older one.",
        )


def _versions(oldest: int, newest: int) -> str:
    return f"version {newest}" if oldest == newest else f"versions {oldest} to {newest}"


def bad_frame(what: str) -> BadData:
    """Return the error for a peer that does not keep to the protocol. ``what`` it sent: a noun."""
    return BadData("mesh.bad-frame", f"The peer sent {what}; it may run another version of decaf-node.")


def _offer_to_wire(offer: Offer) -> pb.Offer:
    return pb.Offer(
        schema=offer.schema,
        snapshot=None if offer.snapshot is None else _snapshot_to_wire(offer.snapshot),
        round=offer.round,
        degree=offer.degree,
        mixes=offer.mixes,
        adopt=offer.adopt,
        turn=offer.turn,
    )


def _offer_from_wire(message: pb.Offer) -> Offer:
    _demand(FINGERPRINT.fullmatch(message.schema) is not None, "a schema that is no fingerprint")
    _demand(max(message.round, message.mixes, message.turn) <= COUNT_LIMIT, "a round or turn out of bounds")
    snapshot = _snapshot_from_wire(message.snapshot) if message.HasField("snapshot") else None
    return Offer(message.schema, snapshot, message.round, message.degree, message.mixes, message.adopt, message.turn)


def _snapshot_to_wire(snapshot: Snapshot) -> pb.Snapshot:
    return pb.Snapshot(
        digest=bytes.fromhex(snapshot.digest),
        round=snapshot.round,
        rank=snapshot.rank,
        size_bytes=snapshot.size_bytes,
    )


def _snapshot_from_wire(message: pb.Snapshot) -> Snapshot:
    _demand(0 < message.size_bytes <= COUNT_LIMIT, "a snapshot of a size out of bounds")
    _demand(message.round <= COUNT_LIMIT, "a round out of bounds")
    return Snapshot(_digest(message.digest), message.round, message.rank, message.size_bytes)


def _digest(raw: bytes) -> str:
    _demand(len(raw) == DIGEST_BYTES, "a digest of another length than 32 bytes")
    return raw.hex()


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise bad_frame(otherwise)
