"""Edges over real sockets: snapshots both ways, resumed after a cut, refused where they are not what was offered."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
import psutil
import pytest

from decaf_node.daemon.dial import Dialler
from decaf_node.daemon.security import Plaintext
from decaf_node.daemon.spool import Partial
from decaf_node.daemon.transport import ServerTransport
from decaf_node.daemon.upload import Upload
from decaf_node.daemon.wire import Chunk, Refusal, Want, encode
from decaf_node.errors import TryAgain
from decaf_node.mesh.events import (
    EdgeBroken,
    EdgeRefused,
    HelloReceived,
    Offer,
    OfferReceived,
    PeerSilent,
    Receipt,
    ReceiptReceived,
    Snapshot,
    SnapshotReceived,
    SnapshotRefused,
)
from decaf_node.mesh.rumours import NO_NEWS, News, Rumour, Standing
from decaf_node.v1 import mesh_pb2
from tests.daemon.ends import HIGH, LOW, SCHEMA, End, Proxy, acquaint, end, introduction, offer, stranger


async def shake(low: End, high: End, mine: Snapshot, theirs: Snapshot) -> None:
    """Open an edge and exchange both offers."""
    low.edges.open(HIGH, offer(mine), ())
    assert await high.seen(OfferReceived) == OfferReceived(LOW, offer(mine), incoming=True)
    high.edges.answer(LOW, offer(theirs))
    assert await low.seen(OfferReceived) == OfferReceived(HIGH, offer(theirs), incoming=False)


async def test_snapshots_travel_both_ways_at_once(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high:
        acquaint(low, high)
        mine, theirs = low.publish(1.0, bulk=50_000), high.publish(2.0, bulk=70_000)
        await shake(low, high, mine, theirs)
        low.edges.fetch(HIGH, theirs)
        high.edges.fetch(LOW, mine)
        assert await low.seen(SnapshotReceived) == SnapshotReceived(HIGH, theirs.digest)
        assert await high.seen(SnapshotReceived) == SnapshotReceived(LOW, mine.digest)
        assert low.spool.path(theirs.digest).read_bytes() == high.spool.path(theirs.digest).read_bytes()
        assert low.host.traffic.total.sent == high.host.traffic.total.received == mine.size_bytes
        assert high.host.traffic.total.sent == low.host.traffic.total.received == theirs.size_bytes


async def test_snapshots_leave_no_faster_than_allowed(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high:
        acquaint(low, high)
        mine, theirs = low.publish(1.0, bulk=50_000), high.publish(2.0, bulk=16)
        waited: list[float] = []

        async def wait(seconds: float) -> None:
            waited.append(seconds)

        low.host.upload = Upload(100_000, lambda: sum(waited), wait)
        await shake(low, high, mine, theirs)
        high.edges.fetch(LOW, mine)
        await high.seen(SnapshotReceived)
        assert sum(waited) > mine.size_bytes / 100_000 - 0.2  # its slack and its last chunk


async def test_the_last_receipt_arrives_before_the_stream_ends(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high:
        acquaint(low, high)
        mine, theirs = low.publish(1.0), high.publish(2.0)
        await shake(low, high, mine, theirs)
        ours, others = Receipt(mine.digest, theirs.digest, 0.5), Receipt(theirs.digest, mine.digest, 0.25)
        high.edges.send_receipt(LOW, others)
        assert await low.seen(ReceiptReceived) == ReceiptReceived(HIGH, others)
        low.edges.send_receipt(HIGH, ours)
        low.edges.close(HIGH)
        assert await high.seen(ReceiptReceived) == ReceiptReceived(LOW, ours)
        assert await high.seen(EdgeBroken)
        assert low.count(EdgeBroken) == 0


async def test_the_listening_end_closes_after_its_last_receipt(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high:
        acquaint(low, high)
        mine, theirs = low.publish(1.0), high.publish(2.0)
        await shake(low, high, mine, theirs)
        last = Receipt(theirs.digest, mine.digest, 0.25)
        high.edges.send_receipt(LOW, last)
        high.edges.close(LOW)
        assert await low.seen(ReceiptReceived) == ReceiptReceived(HIGH, last)
        assert await low.seen(EdgeBroken)
        assert high.count(EdgeBroken) == 0


async def test_a_cut_transfer_goes_on_where_it_ended(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high:
        proxy = Proxy(int(high.me.address.rpartition(":")[2]))
        acquaint(low, high, await proxy.start())
        mine, theirs = low.publish(1.0), high.publish(2.0, bulk=400_000)
        proxy.cut_after = 200_000
        await shake(low, high, mine, theirs)
        low.edges.fetch(HIGH, theirs)
        assert (await low.seen(EdgeBroken)).peer == HIGH
        assert (await high.seen(EdgeBroken)).peer == LOW
        here = low.host.traffic.total.received
        assert 0 < here < theirs.size_bytes
        carried = proxy.to_caller

        low.edges.open(HIGH, offer(mine), ())
        await high.seen(OfferReceived, count=2)
        high.edges.answer(LOW, offer(theirs))
        await low.seen(OfferReceived, count=2)
        low.edges.fetch(HIGH, theirs)
        assert await low.seen(SnapshotReceived) == SnapshotReceived(HIGH, theirs.digest)
        assert low.host.traffic.total.received == theirs.size_bytes
        rest = theirs.size_bytes - here
        assert rest <= proxy.to_caller - carried < rest * 1.05 + 2000  # frames and headers on top
        await proxy.close()


async def test_a_corrupted_chunk_is_refused(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, stranger(low.me.address) as liar:
        true = low.publish(2.0, bulk=3000)
        data = bytearray(low.spool.path(true.digest).read_bytes())
        low.spool.path(true.digest).unlink()
        data[-1] ^= 1
        await liar.say(introduction(), offer(true))
        assert (await low.seen(OfferReceived)).incoming
        low.edges.fetch(HIGH, true)
        assert await liar.hear() == Want(true.digest, 0)
        await liar.say(Chunk(0, bytes(data)))
        refused = await low.seen(SnapshotRefused)
        assert refused.digest == true.digest
        assert "not those of the snapshot" in refused.problem
        assert not low.spool.has(true.digest)


@pytest.mark.parametrize(
    ("schema", "round", "problem"), [("c" * 64, 1, "another schema"), (SCHEMA, 7, "not what was offered")]
)
async def test_a_snapshot_that_is_not_as_offered_is_refused(
    tmp_path: Path, schema: str, round: int, problem: str
) -> None:
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high:
        acquaint(low, high)
        mine, theirs = low.publish(1.0), high.publish(2.0, schema=schema, round=round)
        lie = Snapshot(theirs.digest, 1, theirs.rank, theirs.size_bytes)
        await shake(low, high, mine, lie)
        low.edges.fetch(HIGH, lie)
        assert problem in (await low.seen(SnapshotRefused)).problem
        low.edges.close(HIGH)
        low.edges.open(HIGH, offer(mine), ())  # what was refused is no better now, though its bytes are here
        await high.seen(OfferReceived, count=2)
        high.edges.answer(LOW, offer(lie))
        await low.seen(OfferReceived, count=2)
        low.edges.fetch(HIGH, lie)
        assert problem in (await low.seen(SnapshotRefused, count=2)).problem


async def test_a_truncated_snapshot_is_refused_or_waited_for(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, stranger(low.me.address) as liar:
        whole = low.publish(2.0, bulk=3000)
        data = low.spool.path(whole.digest).read_bytes()
        low.spool.path(whole.digest).unlink()
        await liar.say(introduction(), offer(whole))
        await low.seen(OfferReceived)
        low.edges.fetch(HIGH, whole)
        assert await liar.hear() == Want(whole.digest, 0)
        await liar.say(Chunk(0, data[:1000]))
        await liar.call.done_writing()
        assert (await low.seen(EdgeBroken)).problem == "it ended the stream"
        assert low.count(SnapshotReceived) == low.count(SnapshotRefused) == 0


BAD = Snapshot("0" * 64, 1, 1, 100)


@pytest.mark.parametrize(
    "frames",
    [
        (Chunk(0, b"unasked"),),
        (Want("1" * 64, 0),),
        (offer(BAD), offer(BAD)),
        (introduction(),),
        (mesh_pb2.Frame(),),
        (mesh_pb2.Frame(want=mesh_pb2.Want(digest=b"short")),),
        (mesh_pb2.Frame(receipt=mesh_pb2.Receipt(own=b"o" * 32, theirs=b"t" * 32, weight=float("nan"))),),
        (mesh_pb2.Frame(receipt=mesh_pb2.Receipt(own=b"o" * 32, theirs=b"t" * 32, weight=1.5)),),
        (mesh_pb2.Frame(offer=mesh_pb2.Offer(schema="no fingerprint")),),
        (mesh_pb2.Frame(offer=mesh_pb2.Offer(schema=SCHEMA, round=2**60)),),
        tuple(Receipt("0" * 64, f"{number:064x}", 0.1) for number in range(5)),
    ],
)
async def test_what_does_not_fit_ends_the_stream(tmp_path: Path, frames: tuple[Offer | mesh_pb2.Frame, ...]) -> None:
    async with end(LOW, tmp_path) as low, stranger(low.me.address) as liar:
        await liar.say(introduction(), *frames)
        refusal = await liar.hear()
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "mesh.bad-frame"
        assert await liar.hear() is None
        if low.count(OfferReceived):  # else the machine has not heard of the stream
            assert (await low.seen(EdgeBroken)).peer == HIGH
        assert low.count(EdgeBroken) == low.count(OfferReceived)


async def test_chunks_must_follow_each_other(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, stranger(low.me.address) as liar:
        await liar.say(introduction(), offer(BAD))
        await low.seen(OfferReceived)
        low.edges.fetch(HIGH, BAD)
        assert await liar.hear() == Want(BAD.digest, 0)
        await liar.say(Chunk(10, b"later"))
        assert isinstance(await liar.hear(), Refusal)
        await low.seen(EdgeBroken)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (offer(None), "mesh.bad-frame"),
        (introduction(mesh="other"), "mesh.other-mesh"),
        (introduction(version=3, oldest_version=2), "mesh.other-version"),
        (introduction(node=LOW), "mesh.own-id"),
        (mesh_pb2.Frame(introduction=mesh_pb2.Introduction(version=1, node="me")), "mesh.bad-frame"),
    ],
)
async def test_who_may_not_speak_is_told_why(
    tmp_path: Path, first: Offer | mesh_pb2.Frame, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with end(LOW, tmp_path) as low, stranger(low.me.address) as other:
        await other.say(first)
        refusal = await other.hear()
        assert isinstance(refusal, Refusal)
        assert refusal.reason == reason
        assert await other.hear() is None
        assert low.events == []
        assert refusal.message in caplog.text


async def test_of_two_streams_the_one_of_the_lower_id_stays(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high:
        acquaint(low, high)
        acquaint(high, low)
        mine, theirs = low.publish(1.0), high.publish(2.0)
        low.edges.open(HIGH, offer(mine), ())
        high.edges.open(LOW, offer(theirs), ())
        assert await high.seen(OfferReceived) == OfferReceived(LOW, offer(mine), incoming=True)
        high.edges.answer(LOW, offer(theirs))
        assert await low.seen(OfferReceived) == OfferReceived(HIGH, offer(theirs), incoming=False)
        assert low.count(OfferReceived) == 1
        assert low.count(EdgeBroken) == low.count(EdgeRefused) == high.count(EdgeRefused) == 0


async def test_a_knock_on_a_stream_that_the_lower_id_opened_is_refused(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high, stranger(low.me.address) as knocking:
        acquaint(low, high)
        low.edges.open(HIGH, offer(low.publish()), ())
        await high.seen(OfferReceived)
        await knocking.say(introduction(HIGH), offer(BAD))
        refusal = await knocking.hear()
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "mesh.duplicate-stream"
        assert low.count(OfferReceived) == low.count(EdgeBroken) == 0


async def test_a_stream_opened_anew_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, stranger(low.me.address) as one, stranger(low.me.address) as two:
        await one.say(introduction(), offer(BAD))
        await low.seen(OfferReceived)
        await two.say(introduction(), offer(BAD))
        await low.seen(OfferReceived, count=2)
        assert await one.hear() is None
        low.edges.answer(HIGH, offer(None))
        assert await two.hear() == offer(None)
        assert low.count(EdgeBroken) == 0


async def test_until_its_offer_comes_a_new_stream_hears_nothing_of_the_one_before(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, stranger(low.me.address) as one, stranger(low.me.address) as two:
        await one.say(introduction(), offer(BAD))
        await low.seen(OfferReceived)
        await two.say(introduction(), Receipt("1" * 64, "2" * 64, 0.5))  # of an earlier edge, said again
        await low.seen(ReceiptReceived)
        low.edges.fetch(HIGH, BAD)  # what one has offered
        assert await one.hear() == Want(BAD.digest, 0)
        await two.say(offer(None))
        await low.seen(OfferReceived, count=2)
        assert await one.hear() is None
        assert low.count(EdgeBroken) == 0


async def test_a_refusal_reaches_the_other_end(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high:
        acquaint(low, high)
        low.edges.open(HIGH, offer(low.publish()), ())
        await high.seen(OfferReceived)
        high.edges.refuse(LOW, "mesh.other-schema", "Another base model.")
        assert await low.seen(EdgeRefused) == EdgeRefused(HIGH, "mesh.other-schema", "Another base model.")
        assert high.count(EdgeBroken) == 0


class Gone:
    """A call whose other end is lost while it is answered, as gRPC shows it."""

    def peer(self) -> str:
        return "ipv4:10.0.0.9:40000"

    async def send_initial_metadata(self, metadata: object) -> None:
        pass

    async def read(self) -> mesh_pb2.Frame:
        return encode(introduction())

    async def write(self, frame: mesh_pb2.Frame) -> None:
        raise grpc.aio.InternalError('Failed "execute_batch": (<grpc._cython.cygrpc.SendMessageOperation object>,)')


async def test_who_is_gone_before_it_can_be_refused_is_not_spoken_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with end(LOW, tmp_path) as low:
        low.edges.blame(HIGH)
        assert low.service is not None
        await low.service.Exchange(cast(Any, None), cast(Any, Gone()))
    assert caplog.text == ""


async def test_what_grpc_says_of_its_own_objects_is_not_passed_on() -> None:
    with pytest.raises(TryAgain) as error:
        await ServerTransport(cast(Any, Gone())).write(encode(introduction()))
    assert error.value.message == "the stream broke (it is closed)"


async def test_more_streams_than_allowed_are_refused(tmp_path: Path) -> None:
    async with end(LOW, tmp_path, streams=1) as low, stranger(low.me.address) as one, stranger(low.me.address) as two:
        await one.say(introduction(), offer(BAD))
        await low.seen(OfferReceived)
        await two.say(introduction("Y" * 52), offer(BAD))
        refusal = await two.hear()
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "mesh.too-many-streams"


async def test_a_vanished_snapshot_ends_the_edge(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high:
        acquaint(low, high)
        mine, theirs = low.publish(1.0), high.publish(2.0)
        await shake(low, high, mine, theirs)
        high.spool.path(theirs.digest).unlink()
        low.edges.fetch(HIGH, theirs)
        assert (await low.seen(EdgeRefused)).reason == "spool.gone"


async def test_nobody_at_the_address_is_silence(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low:
        low.dialler.learn(HIGH, ("127.0.0.1:1",))
        low.edges.open(HIGH, offer(low.publish()), ())
        silent = await low.seen(PeerSilent)
        assert silent.peer == HIGH
        assert "127.0.0.1:1" in silent.problem
        low.edges.open("Y" * 52, offer(low.publish()), ())
        assert await low.seen(PeerSilent, count=2) == PeerSilent("Y" * 52, "no address of it is known")


async def test_who_speaks_to_us_is_known_by_where_it_listens(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path, listen="0.0.0.0") as high:
        acquaint(high, low)
        assert (await high.dialler.hello(LOW)).who.name == "node-A"
        port = high.me.address.rpartition(":")[2]
        hello = HelloReceived(HIGH, "node-Z", SCHEMA, 1, (f"127.0.0.1:{port}",))
        assert await low.seen(HelloReceived) == hello
        assert (await low.dialler.hello(HIGH)).who.node == HIGH


async def test_a_hello_carries_news_both_ways_and_what_it_tells_can_be_dialled(tmp_path: Path) -> None:
    third = "M" * 52
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high, end(third, tmp_path) as other:
        where = (other.me.address,)
        high.tells = News(2, known=(Rumour(third, Standing.HERE, 0, "node-M", SCHEMA, where),))
        told = News(
            1, b"\5" * 512, (Rumour(LOW, Standing.LOST, 4), Rumour(third, Standing.HERE, addresses=("10.9.9.9:1",)))
        )
        acquaint(low, high)
        answer = await low.dialler.hello(HIGH, told)
        assert (answer.who.node, answer.news) == (HIGH, high.tells)
        assert (await high.seen(HelloReceived)).news == told
        assert (await low.dialler.hello(third)).who.node == third
        assert low.dialler.name(third) == "node-M"
        high.dialler.learn(third, where)
        assert high.dialler.best(third) == other.me.address  # what we find ourselves comes first


def test_hearsay_takes_the_place_of_hearsay_and_of_no_address_that_works() -> None:
    dialler = Dialler(introduction, lambda: NO_NEWS, backoff=1.0, peers=3, security=Plaintext())
    dialler.learn("met", tuple(f"10.0.0.1:{port}" for port in range(1, 9)))
    rumours = [Rumour(peer, Standing.HERE, addresses=("10.0.0.9:9",)) for peer in ("met", "b", "c", "d")]
    dialler.learn_from(News(rumours=(*rumours, Rumour("lost", Standing.LOST, addresses=("10.0.0.9:9",)))))
    assert dialler.met_last(9) == ["met", "b", "d"]
    assert dialler.best("met") == "10.0.0.1:1"
    assert dialler.learn("met", ())[-1] == "10.0.0.9:9"
    assert len(dialler.learn("met", ())) == 8


async def test_a_full_spool_ends_the_edge_and_is_said(tmp_path: Path) -> None:
    async with end(LOW, tmp_path, spool_bytes=2000) as low, end(HIGH, tmp_path) as high:
        acquaint(low, high)
        mine, theirs = low.publish(1.0), high.publish(2.0, bulk=3000)
        await shake(low, high, mine, theirs)
        low.edges.fetch(HIGH, theirs)
        assert "raise limits.spool_bytes" in (await low.seen(EdgeBroken)).problem
        assert "aise limits.spool_bytes" in low.host.problems.by_place()["spool"].words
        await high.seen(EdgeBroken)


async def test_a_part_that_another_stream_has_just_taken_ends_the_edge_and_not_the_daemon(tmp_path: Path) -> None:
    """All of it is here already, from streams that broke before their last piece was looked at."""
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high:
        acquaint(low, high)
        mine, theirs = low.publish(1.0), high.publish(2.0)
        await shake(low, high, mine, theirs)
        whole = high.host.spool.path(theirs.digest)
        (low.host.spool.folder / f"{theirs.digest}.{HIGH}.part").write_bytes(whole.read_bytes())
        taken = low.host.spool.partial

        def take_twice(digest: str, size: int, peer: str) -> Partial:
            first = taken(digest, size, peer)
            taken(digest, size, peer)
            return first

        low.host.spool.partial = take_twice  # type: ignore[method-assign]
        low.edges.fetch(HIGH, theirs)
        assert "is being fetched anew" in (await low.seen(EdgeBroken)).problem
        assert not low.tasks.failed.done()


def is_of(node: str, event: OfferReceived) -> bool:
    return event.peer == node


async def test_a_digest_on_its_way_belongs_to_the_peer_that_sends_it(tmp_path: Path) -> None:
    """A third node offers the same digest and sends rubbish: what the other sends is whole all the same."""
    async with end(LOW, tmp_path) as low, stranger(low.me.address) as fair, stranger(low.me.address) as liar:
        true = low.publish(2.0, bulk=3000)
        data = low.spool.path(true.digest).read_bytes()
        low.spool.path(true.digest).unlink()
        for who, node in ((fair, HIGH), (liar, "Y" * 52)):
            await who.say(introduction(node), offer(true))
            await low.seen(OfferReceived, partial(is_of, node))
            low.edges.fetch(node, true)
            assert await who.hear() == Want(true.digest, 0)
        await fair.say(Chunk(0, data[:1000]))
        await liar.say(Chunk(0, bytes(len(data))))
        assert (await low.seen(SnapshotRefused)).peer == "Y" * 52
        await fair.say(Chunk(1000, data[1000:]))
        assert await low.seen(SnapshotReceived) == SnapshotReceived(HIGH, true.digest)


async def test_a_stream_that_has_ended_keeps_no_room(tmp_path: Path) -> None:
    async with end(LOW, tmp_path, spool_bytes=10_000) as low, stranger(low.me.address) as one:
        large = Snapshot("0" * 64, 1, 1, 9000)
        await one.say(introduction(), offer(large))
        await low.seen(OfferReceived)
        low.edges.fetch(HIGH, large)
        await one.hear()
        assert low.spool.used_bytes() == 9000
        one.call.cancel()
        await low.seen(EdgeBroken)
        assert low.spool.used_bytes() == 0


async def test_who_trickles_a_snapshot_is_given_up_and_left_alone(tmp_path: Path) -> None:
    async with end(LOW, tmp_path, window=0.2) as low, stranger(low.me.address) as slow:
        large = Snapshot("0" * 64, 1, 1, 1_000_000)
        await slow.say(introduction(), offer(large))
        await low.seen(OfferReceived)
        low.edges.fetch(HIGH, large)
        assert isinstance(await slow.hear(), Want)
        await slow.say(Chunk(0, b"x" * 100))
        refused = await low.seen(SnapshotRefused)
        assert (refused.peer, refused.digest) == (HIGH, large.digest)
        assert "too slow" in (await low.seen(EdgeBroken)).problem
        assert await slow.hear() is None
        assert low.spool.used_bytes() == 100
        async with stranger(low.me.address) as again:
            await again.say(introduction(), offer(large))
            refusal = await again.hear()
            assert isinstance(refusal, Refusal)
            assert refusal.reason == "mesh.backing-off"


async def test_who_takes_a_snapshot_too_slowly_is_given_up(tmp_path: Path) -> None:
    async with end(LOW, tmp_path, window=0.3) as low, stranger(low.me.address) as slow:
        mine = low.publish(1.0, bulk=16_000_000)
        await slow.say(introduction(), offer(BAD))
        await low.seen(OfferReceived)
        low.edges.answer(HIGH, offer(mine))
        await slow.hear()
        await slow.say(Want(mine.digest, 0))  # and reads none of it
        assert "too slow" in (await low.seen(EdgeBroken)).problem


async def test_who_opens_a_stream_and_offers_nothing_is_given_up(tmp_path: Path) -> None:
    async with end(LOW, tmp_path, window=0.2) as low, stranger(low.me.address) as silent:
        await silent.say(introduction())
        assert await silent.hear() is None


async def test_who_breaks_the_protocol_is_refused_for_a_while_and_not_dialled(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, end(HIGH, tmp_path) as high:
        async with stranger(low.me.address) as liar:
            await liar.say(introduction(), offer(BAD), Chunk(0, b"unasked"))
            assert isinstance(await liar.hear(), Refusal)
            await low.seen(EdgeBroken)
        acquaint(low, high)
        acquaint(high, low)
        low.edges.open(HIGH, offer(low.publish()), ())
        assert "left alone" in (await low.seen(EdgeBroken, count=2)).problem
        high.edges.open(LOW, offer(high.publish()), ())
        assert (await high.seen(EdgeRefused)).reason == "mesh.backing-off"
        assert low.count(OfferReceived) == 1, "that of the liar"


async def test_a_member_that_calls_too_often_is_refused(tmp_path: Path) -> None:
    async with end(LOW, tmp_path, calls=5) as low, end(HIGH, tmp_path) as high:
        acquaint(high, low)
        await high.dialler.hello(LOW)
        outcomes = await asyncio.gather(*(high.dialler.hello(LOW) for _ in range(100)), return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, TryAgain)]
        assert any("too-many-calls" in refusal.message for refusal in refused)


async def test_a_header_that_claims_10_gb_costs_no_memory(tmp_path: Path) -> None:
    async with end(LOW, tmp_path) as low, stranger(low.me.address) as liar:
        data = struct.pack("<Q", 10 * 2**30) + b"{" * 5000
        claim = Snapshot(hashlib.sha256(data).hexdigest(), 1, 1, len(data))
        await liar.say(introduction(), offer(claim))
        await low.seen(OfferReceived)
        memory = psutil.Process().memory_info().rss
        low.edges.fetch(HIGH, claim)
        assert isinstance(await liar.hear(), Want)
        await liar.say(Chunk(0, data))
        refused = await low.seen(SnapshotRefused)
        assert "its header claims 10737418240 bytes" in refused.problem
        assert psutil.Process().memory_info().rss - memory < 16e6


@pytest.mark.slow
async def test_calls_that_are_begun_and_never_ended_keep_nobody_out(tmp_path: Path) -> None:
    """One peer holds as many as it can; another is answered all the same, and soon there are none."""
    async with end(LOW, tmp_path, streams=4, calls=20) as low, end(HIGH, tmp_path) as high:
        acquaint(high, low)
        async with grpc.aio.insecure_channel(low.me.address) as channel:
            method: Any = channel.stream_unary("/decaf_node.v1.Mesh/Hello")
            begun: list[Any] = [method(timeout=60.0) for _ in range(64)]
            ended = await asyncio.gather(*begun, return_exceptions=True)
            said = {str(call.details()) for call in ended if isinstance(call, grpc.aio.AioRpcError)}
            assert any("not come in time" in words for words in said), said
            assert len(ended) == 64
            assert not any(isinstance(call, mesh_pb2.HelloReply) for call in ended)
        assert (await high.dialler.hello(LOW)).who.node == LOW
