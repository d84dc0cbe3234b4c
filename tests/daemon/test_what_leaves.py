"""docs/security.md says what leaves a node: all of it, and nothing that is not there."""

from __future__ import annotations

import json
import re
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from decaf_node.daemon.discovery import Discovery
from decaf_node.mesh.events import OfferReceived, Receipt, ReceiptReceived, SnapshotReceived
from decaf_node.mesh.rumours import NO_NEWS, News, Rumour, Standing
from decaf_node.settings import DiscoverySection
from decaf_node.snapshot import metadata
from decaf_node.v1 import enrolment_pb2, mesh_pb2
from tests.daemon.ends import HIGH, LOW, SCHEMA, acquaint, end, offer

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
PREFIX = "/decaf_node.v1.Mesh/"


def section() -> str:
    found = re.search(r"^## What leaves a node\n(.*?)^## ", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None
    return found[1]


def listed() -> set[str]:
    """The fields that the page names: ``Message.field``."""
    return set(re.findall(r"`([A-Z]\w+\.[a-z_]+)`", section()))


def fields_of(file: FileDescriptor) -> set[str]:
    return {f"{message.name}.{field.name}" for message in all_messages(file) for field in message.fields}


def all_messages(file: FileDescriptor) -> Iterator[Descriptor]:
    waiting = list(file.message_types_by_name.values())
    while waiting:
        message = waiting.pop()
        yield message
        waiting += message.nested_types


def test_every_field_of_every_message_is_listed_and_no_other() -> None:
    assert listed() == fields_of(mesh_pb2.DESCRIPTOR) | fields_of(enrolment_pb2.DESCRIPTOR)


def test_the_header_of_a_snapshot_and_what_mdns_says_are_listed() -> None:
    words = set(re.findall(r"`(\w+)`", section()))
    assert metadata("s", "b", 1, {}).keys() <= words
    discovery = Discovery("N", "name", "lab", 1, DiscoverySection(), lambda *_: None, lambda *_: None)
    for expecting in (0, 7434):
        discovery._expecting = expecting
        said = {key.decode() for key in discovery._described([]).properties if key}
        assert said == {"id", "mesh", "v", "schema", *(["join"] if expecting else [])}
    assert said <= words


class Tap(grpc.GenericRpcHandler):
    """Stands between two nodes and passes on the bytes of every message as they are, noting them by method and way."""

    def __init__(self, channel: Any) -> None:
        self.heard: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
        self._channel = channel

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method: str = handler_call_details.method
        name = method.removeprefix(PREFIX)

        async def unary(request: bytes, context: Any) -> bytes:
            self.heard[name, "there"].append(request)
            reply: bytes = await self._channel.unary_unary(method)(request)
            self.heard[name, "back"].append(reply)
            return reply

        async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for reply in self._channel.stream_stream(method)(self._noted(name, requests)):
                self.heard[name, "back"].append(reply)
                yield reply

        if name == "Exchange":
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    async def _noted(self, name: str, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for request in requests:
            self.heard[name, "there"].append(request)
            yield request


@asynccontextmanager
async def tap(address: str) -> AsyncIterator[tuple[Tap, str]]:
    """Give a tap in front of ``address``, and where it listens."""
    async with grpc.aio.insecure_channel(address) as channel:
        handler, server = Tap(channel), grpc.aio.server()
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield handler, f"127.0.0.1:{port}"
        finally:
            await server.stop(0)


def said_in(message: Message) -> Iterator[str]:
    """Yield the fields that are set, ``Message.field``, in all depths. Nothing may be there that has no name."""
    assert len(UnknownFieldSet(message)) == 0
    for field, value in message.ListFields():
        yield f"{message.DESCRIPTOR.name}.{field.name}"
        parts = list(value) if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]
        for part in parts:
            if isinstance(part, Message):
                yield from said_in(part)


def parsed(tapped: Tap) -> list[Message]:
    methods = mesh_pb2.DESCRIPTOR.services_by_name["Mesh"].methods_by_name
    messages = []
    for (name, way), raws in tapped.heard.items():
        kind = GetMessageClass(methods[name].input_type if way == "there" else methods[name].output_type)
        for raw in raws:
            message = kind.FromString(raw)
            assert message.SerializeToString(deterministic=True) == raw  # no byte beside the fields
            messages.append(message)
    return messages


def file_in(frames: list[Message]) -> bytes:
    return b"".join(frame.chunk.data for frame in frames if frame.HasField("chunk"))  # type: ignore[attr-defined]


async def test_a_real_connection_holds_nothing_else(tmp_path: Path) -> None:
    """A hello and a whole edge, over real sockets: each byte belongs to a field that the page names."""
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high, tap(high.me.address) as (tapped, address):
        low.me.shares_loss, low.me.loss = True, 0.25
        low.me.shares_labels, low.me.label_parts = True, (0.75, 0.25)
        acquaint(low, high, address)
        high.tells = News(
            3, bytes(range(64)) * 8, (Rumour("B" * 52, Standing.HERE, 1, "b", SCHEMA, ("192.0.2.7:7433",)),)
        )
        await low.dialler.hello(HIGH, NO_NEWS)
        mine, theirs = low.publish(1.0, bulk=5000), high.publish(2.0, bulk=5000)
        low.edges.open(HIGH, offer(mine), ())
        await high.seen(OfferReceived)
        high.edges.answer(LOW, offer(theirs))
        await low.seen(OfferReceived)
        low.edges.fetch(HIGH, theirs)
        high.edges.fetch(LOW, mine)
        await low.seen(SnapshotReceived)
        await high.seen(SnapshotReceived)
        low.edges.send_receipt(HIGH, Receipt(mine.digest, theirs.digest, 0.5))
        high.edges.send_receipt(LOW, Receipt(theirs.digest, mine.digest, 0.25))
        await low.seen(ReceiptReceived)
        await high.seen(ReceiptReceived)
        files = [low.spool.path(digest).read_bytes() for digest in (mine.digest, theirs.digest)]
    messages = parsed(tapped)
    said = {field for message in messages for field in said_in(message)}
    assert said <= listed()
    assert {"Introduction.loss", "Introduction.label_parts"} <= said
    assert {"Rumour.addresses", "Offer.degree", "Chunk.data", "Receipt.weight"} <= said
    frames = {
        way: [mesh_pb2.Frame.FromString(raw) for raw in tapped.heard["Exchange", way]] for way in ("there", "back")
    }
    assert [file_in(frames["there"]), file_in(frames["back"])] == files  # type: ignore[arg-type]
    for content in files:
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
        assert header.pop("__metadata__").keys() == metadata("s", "b", 1, {}).keys()
        assert all(tensor.keys() == {"dtype", "shape", "data_offsets"} for tensor in header.values())


async def test_losses_and_labels_are_said_only_where_they_are_shared(tmp_path: Path) -> None:
    private = {"Introduction.loss", "Introduction.label_parts"}
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high, tap(high.me.address) as (tapped, address):
        low.me.loss = high.me.loss = 0.25
        low.me.label_parts = high.me.label_parts = (0.75, 0.25)
        high.me.shares_loss = high.me.shares_labels = True
        acquaint(low, high, address)
        answer = await low.dialler.hello(HIGH, NO_NEWS)
        low.host.said.heard(answer.who)
        assert low.host.said.loss_of(HIGH) == 0.25
        assert high.host.said.loss_of(LOW) is None
        assert low.host.said.labels(low.me.introduction(), low.me.label_parts) == (0.75, 0.25)
        heard = high.host.said.labels(high.me.introduction(), high.me.label_parts)
        assert heard[0] < 0.75, "low does not tell: it counts as one where labels are alike"
        there, back = (tapped.heard["Hello", way] for way in ("there", "back"))
        assert not private & set(said_in(mesh_pb2.HelloRequest.FromString(there[0])))
        assert private <= set(said_in(mesh_pb2.HelloReply.FromString(back[0])))
        low.me.shares_loss = low.me.shares_labels = True
        await low.dialler.hello(HIGH, NO_NEWS)
        assert high.host.said.loss_of(LOW) == 0.25
        assert high.host.said.labels(high.me.introduction(), high.me.label_parts) == (0.75, 0.25)
