"""News of the mesh: protobuf to and from plain values. A rumour that cannot be true is dropped, and the rest taken."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import islice

from decaf_node.daemon.addresses import is_of_use
from decaf_node.daemon.texts import NODE_ID, readable
from decaf_node.daemon.wire import ADDRESS_LIMIT, FINGERPRINT, NAME_LIMIT
from decaf_node.mesh.rumours import (
    ADDRESSES_AT_MOST,
    INCARNATIONS,
    KNOWN_AT_MOST,
    NEWS_AT_MOST,
    News,
    Rumour,
    Standing,
)
from decaf_node.v1 import mesh_pb2 as pb

STANDINGS = frozenset(int(standing) for standing in Standing)
DIGEST_LIMIT = 64  # buckets; a digest of another length says nothing


def news_to_wire(news: News) -> pb.News:
    """Return the protobuf message for news."""
    return pb.News(
        incarnation=news.incarnation,
        digest=array("Q", news.digest),
        rumours=[_rumour_to_wire(rumour) for rumour in news.rumours],
        known=[_rumour_to_wire(rumour) for rumour in news.known],
    )


def news_from_wire(message: pb.News, source: str) -> News:
    """Return the news in ``message`` as far as they make sense, cut to their limits.

    source: where the teller's connection comes from, or goes to, as in ``addresses.is_of_use``.
    """
    return News(
        incarnation=min(message.incarnation, INCARNATIONS - 1),
        digest=array("Q", islice(message.digest, DIGEST_LIMIT)).tobytes(),
        rumours=_rumours(message.rumours, NEWS_AT_MOST + 1, source),
        known=_rumours(message.known, KNOWN_AT_MOST, source),
    )


def _rumours(messages: Sequence[pb.Rumour], limit: int, source: str) -> tuple[Rumour, ...]:
    rumours = (_rumour_from_wire(message, source) for message in islice(messages, limit))
    return tuple(rumour for rumour in rumours if rumour is not None)


def _rumour_to_wire(rumour: Rumour) -> pb.Rumour:
    return pb.Rumour(
        node=rumour.peer,
        standing=pb.Standing.ValueType(rumour.standing),
        incarnation=rumour.incarnation,
        name=rumour.name,
        schema=rumour.schema,
        addresses=rumour.addresses,
    )


def _rumour_from_wire(message: pb.Rumour, source: str) -> Rumour | None:
    sound = (
        NODE_ID.fullmatch(message.node) is not None
        and int(message.standing) in STANDINGS
        and message.incarnation < INCARNATIONS
        and FINGERPRINT.fullmatch(message.schema) is not None
    )
    if not sound:
        return None
    addresses = [
        address
        for address in islice(message.addresses, ADDRESSES_AT_MOST)
        if len(address) <= ADDRESS_LIMIT and is_of_use(address, source)
    ]
    return Rumour(
        peer=message.node,
        standing=Standing(message.standing),
        incarnation=message.incarnation,
        name=readable(message.name[:NAME_LIMIT]),
        schema=message.schema,
        addresses=tuple(addresses),
    )
