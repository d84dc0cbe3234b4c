"""Frames to protobuf and back; what is out of bounds is refused. Reports likewise."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from decaf_node.daemon import report_wire
from decaf_node.daemon.addresses import from_source, is_loopback, split, target
from decaf_node.daemon.alert_wire import alert_from_wire, alert_to_wire
from decaf_node.daemon.event_wire import event_from_wire, event_to_wire
from decaf_node.daemon.news_wire import news_from_wire, news_to_wire
from decaf_node.daemon.reports import (
    AlertReport,
    EdgeReport,
    EventReport,
    GpuReport,
    LinkReport,
    MachineReport,
    MemberReport,
    PeerReport,
    PrivacyReport,
    ProblemReport,
    RailReport,
    RoundReport,
    StatusReport,
    TopologyReport,
    TrainerReport,
)
from decaf_node.daemon.topology_wire import topology_from_wire, topology_to_wire
from decaf_node.daemon.wire import (
    CHUNK_LIMIT_BYTES,
    Chunk,
    Frame,
    Introduction,
    Refusal,
    Want,
    check_version,
    decode,
    encode,
    introduction_from_wire,
)
from decaf_node.errors import BadData
from decaf_node.mesh.events import Offer, Receipt, Snapshot
from decaf_node.mesh.rumours import INCARNATIONS, NO_NEWS, News, Rumour, Standing
from decaf_node.v1 import mesh_pb2 as pb
from decaf_node.v1 import monitor_pb2

DIGEST, OTHER = "ab" * 32, "cd" * 32
NODE = "A" * 52
SNAPSHOT = Snapshot(DIGEST, 3, 8, 1000)


@pytest.mark.parametrize(
    ("oldest", "newest", "refused"),
    [
        (1, 1, ""),
        (1, 2, ""),  # newer, and still speaks ours
        (0, 1, ""),  # from before a range was told
        (2, 2, "This node speaks version 1 of the protocol and orin speaks version 2; update the older one."),
        (2, 5, "This node speaks version 1 of the protocol and orin speaks versions 2 to 5; update the older one."),
        (0, 0, "This node speaks version 1 of the protocol and orin speaks version 0; update the older one."),
    ],
)
def test_nodes_mix_if_there_is_a_version_that_both_speak(oldest: int, newest: int, refused: str) -> None:
    said = pb.Introduction(node=NODE, name="orin", version=newest, oldest_version=oldest)
    if not refused:
        check_version(introduction_from_wire(said))
        return
    with pytest.raises(BadData) as caught:
        check_version(introduction_from_wire(said))
    assert (caught.value.reason, caught.value.message) == ("mesh.other-version", refused)


def test_versions_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(BadData, match="versions that contradict"):
        introduction_from_wire(pb.Introduction(node=NODE, version=1, oldest_version=2))


@pytest.mark.parametrize(
    "frame",
    [
        Introduction(NODE, "näme", "lab", "e" * 64, 2**53, "[::1]:7433"),
        Introduction(NODE, "", "", "", 0, ""),
        Introduction(NODE, "", "", "", 0, "", loss=0.0),
        Introduction(NODE, "", "", "", 0, "", loss=-1.5),
        Introduction(NODE, "", "", "", 0, "", base="f" * 64),
        Introduction(NODE, "", "", "", 0, "", label_parts=(0.25, 0.75, 0.0)),
        Introduction(NODE, "", "", "", 0, "", label_parts=(2.0**-10,) * 1024),
        Offer("e" * 64, SNAPSHOT, 3, 2, 1, turn=9),
        Offer("", None, 0, 0, 0, adopt=True),
        Want(DIGEST, 2**40),
        Chunk(5, b"x" * CHUNK_LIMIT_BYTES),
        Receipt(DIGEST, OTHER, 0.25),
        Refusal("mesh.other-schema", "Why not."),
    ],
)
def test_frames_come_back_as_they_were(frame: Frame) -> None:
    assert decode(pb.Frame.FromString(encode(frame).SerializeToString())) == frame


@pytest.mark.parametrize(
    "message",
    [
        pb.Frame(),
        pb.Frame(introduction=pb.Introduction(node="x" * 52)),
        pb.Frame(introduction=pb.Introduction(node=NODE, schema="E" * 64)),
        pb.Frame(introduction=pb.Introduction(node=NODE, base="f" * 63)),
        pb.Frame(introduction=pb.Introduction(node=NODE, mesh="m" * 256)),
        pb.Frame(introduction=pb.Introduction(node=NODE, address="a" * 301)),
        pb.Frame(introduction=pb.Introduction(node=NODE, address="a\n:1")),
        pb.Frame(introduction=pb.Introduction(node=NODE, round=2**53 + 1)),
        pb.Frame(introduction=pb.Introduction(node=NODE, loss=float("nan"))),
        pb.Frame(introduction=pb.Introduction(node=NODE, loss=float("-inf"))),
        pb.Frame(introduction=pb.Introduction(node=NODE, label_parts=[1.5, -0.5])),
        pb.Frame(introduction=pb.Introduction(node=NODE, label_parts=[0.5, 0.25])),
        pb.Frame(introduction=pb.Introduction(node=NODE, label_parts=[float("nan"), 1.0])),
        pb.Frame(introduction=pb.Introduction(node=NODE, label_parts=[1.0, float("nan")])),
        pb.Frame(introduction=pb.Introduction(node=NODE, label_parts=[float("inf")])),
        pb.Frame(introduction=pb.Introduction(node=NODE, label_parts=[1 / 1025] * 1025)),
        pb.Frame(offer=pb.Offer(mixes=2**63)),
        pb.Frame(offer=pb.Offer(turn=2**63)),
        pb.Frame(offer=pb.Offer(snapshot=pb.Snapshot(digest=b"d" * 31, size_bytes=1))),
        pb.Frame(offer=pb.Offer(snapshot=pb.Snapshot(digest=b"d" * 32, size_bytes=0))),
        pb.Frame(want=pb.Want(digest=b"d" * 33)),
        pb.Frame(chunk=pb.Chunk()),
        pb.Frame(chunk=pb.Chunk(data=b"x" * (CHUNK_LIMIT_BYTES + 1))),
        pb.Frame(receipt=pb.Receipt(own=b"d" * 32, theirs=b"d" * 32, weight=float("inf"))),
        pb.Frame(receipt=pb.Receipt(own=b"d" * 32, theirs=b"d" * 32, weight=-0.1)),
        pb.Frame(refusal=pb.Refusal(reason="No Reason")),
    ],
)
def test_what_is_out_of_bounds_is_refused(message: pb.Frame) -> None:
    with pytest.raises(BadData) as caught:
        decode(message)
    assert caught.value.reason == "mesh.bad-frame"


def test_what_a_peer_says_cannot_forge_lines() -> None:
    said = decode(pb.Frame(refusal=pb.Refusal(reason="a.b", message="one\ntwo\x1b[2J" + "x" * 2000)))
    assert isinstance(said, Refusal)
    assert said.message.startswith("one two [2J")
    assert len(said.message) == 1000
    who = decode(pb.Frame(introduction=pb.Introduction(version=1, node=NODE, name="a\rb" + "x" * 300)))
    assert isinstance(who, Introduction)
    assert who.name.startswith("a b")
    assert len(who.name) == 255


ROUND = RoundReport(
    7,
    1.5,
    3,
    0.5,
    1.0,
    2.0,
    3.0,
    (EdgeReport(NODE, 0.5, 1.25, 0.75), EdgeReport(NODE, 0.5, 1.25)),
    0.1,
    0.2,
    0.3,
    0.4,
    10,
    20,
    0.6,
    0.7,
    True,
)
BARE = dataclasses.replace(ROUND, edges=(), consensus_distance=None, evaluation_loss=None, evaluation_accuracy=None)
TRAINER = TrainerReport(9, "ready", 1, "cpu", 8, 100, 0.5, 3, 1.5)
PEER = PeerReport(NODE, "name", "alive", ("a:1", "b:2"), True, 4, 0.5, 0.25, 1.5, 0.75, 0.5, 0.125, 6, "problem", 0.75)
UNMET = dataclasses.replace(
    PEER, heard_seconds=None, weight=None, distance=None, plain_distance=None, harm=None, clip_factor=None, loss=None
)
STATUS = StatusReport(
    *(NODE, "name", "lab", "1", "i", "training", "problem", 8, 7, 6, 2, (NODE, "B" * 52), 1.5, 1000, "a:1", "e" * 64),
    *(TRAINER, ROUND, 10, 20, "/state", "/adapter", PrivacyReport(8.0, 1e-5, 2.5, 100, 40, 0.9)),
)


MACHINE = MachineReport(
    (GpuReport("A2000", 0.5, 1, 2, 60.0, 40.0), GpuReport("Orin", None, None, None, None, None)),
    *(3, 4, 50.0, 12.5, (RailReport("VDD_IN", 12.5),), False),
)


def test_reports_come_back_as_they_were() -> None:
    for row in (ROUND, BARE):
        assert report_wire.round_from_wire(report_wire.round_to_wire(row)) == row
    for peer in (PEER, UNMET):
        assert report_wire.peer_from_wire(report_wire.peer_to_wire(peer)) == peer
    for status in (
        STATUS,
        dataclasses.replace(STATUS, machine=MACHINE, why_paused="an operator has paused it"),
        dataclasses.replace(STATUS, machine=MachineReport((), None, None, None, None)),
        dataclasses.replace(STATUS, last_round=None, privacy=None, trainer=dataclasses.replace(TRAINER, loss=None)),
    ):
        assert report_wire.status_from_wire(report_wire.status_to_wire(status)) == status


ALERT = AlertReport("disk.full", "critical", "disk", 1.5, "It is full.", "Make room.")
TOPOLOGY = TopologyReport(
    *("ring", "auto", NODE, (MemberReport(NODE, "a", "alive", 3, 1), MemberReport("B" * 52, "", "gone", 0, 0))),
    *((LinkReport(NODE, "B" * 52, 0.25, True), LinkReport("B" * 52, "C" * 52, None, False)), 5, 2),
)


def test_alerts_and_the_graph_come_back_as_they_were() -> None:
    assert alert_from_wire(alert_to_wire(ALERT)) == ALERT
    assert topology_from_wire(topology_to_wire(TOPOLOGY)) == TOPOLOGY
    for problem in (ProblemReport("disk", "It is full.", ALERT), ProblemReport("disk", "")):
        event = EventReport("i", 1, 0.5, problem)
        assert event_from_wire(event_to_wire(event)) == event
    old = monitor_pb2.WatchEvent(problem=monitor_pb2.Problem(place="disk", sentence="It is full."))
    assert event_from_wire(old) == EventReport("", 0, 0.0, ProblemReport("disk", "It is full."))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_report_of_a_time_that_cannot_be_is_refused(value: float) -> None:
    """Another device may report it, and no calendar can print it."""
    for row in (dataclasses.replace(ROUND, time=value), dataclasses.replace(ROUND, mix_seconds=value)):
        with pytest.raises(BadData):
            report_wire.round_from_wire(report_wire.round_to_wire(row))
    with pytest.raises(BadData):
        report_wire.peer_from_wire(report_wire.peer_to_wire(dataclasses.replace(PEER, heard_seconds=value)))
    with pytest.raises(BadData):
        report_wire.status_from_wire(report_wire.status_to_wire(dataclasses.replace(STATUS, node="n" * 52)))


def test_what_another_device_reports_cannot_move_the_cursor() -> None:
    forged = dataclasses.replace(PEER, name="a\x1b[2Jb", problem="c\nd")
    read = report_wire.peer_from_wire(report_wire.peer_to_wire(forged))
    assert (read.name, read.problem) == ("a [2Jb", "c d")


@pytest.mark.parametrize(
    ("address", "parts", "to"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80), "ipv4:127.0.0.1:80"),
        ("[::1]:80", ("::1", 80), "ipv6:[::1]:80"),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80), "ipv6:[fe80::1%25eth0]:80"),
        ("orin-a.local:7433", ("orin-a.local", 7433), "dns:///orin-a.local:7433"),
    ],
)
def test_addresses_become_targets(address: str, parts: tuple[str, int], to: str) -> None:
    assert split(address) == parts
    assert target(address) == to


@pytest.mark.parametrize(
    "address", ["", "host", "host:", "host:0", "host:65536", "unix:/run/x:1", "a/b:1", ":1", "h:1²"]
)
def test_what_is_no_address_is_none(address: str) -> None:
    assert split(address) is None


@pytest.mark.parametrize(
    ("claimed", "source", "address"),
    [
        ("10.0.0.5:7433", "ipv4:10.0.0.5:51000", "10.0.0.5:7433"),
        ("0.0.0.0:7433", "ipv4:10.0.0.5:51000", "10.0.0.5:7433"),
        ("[::]:7433", "ipv6:%5Bfd00::5%5D:51000", "[fd00::5]:7433"),
        ("127.0.0.1:7433", "ipv4:127.0.0.1:51000", "127.0.0.1:7433"),
        ("127.0.0.1:7433", "ipv4:10.0.0.5:51000", None),
        ("somewhere:7433", "ipv4:10.0.0.5:51000", None),
        ("", "ipv4:10.0.0.5:51000", None),
        ("10.0.0.5:7433", "unix:", None),
    ],
)
def test_where_a_caller_listens(claimed: str, source: str, address: str | None) -> None:
    assert from_source(claimed, source) == address


def test_loopback() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("192.0.2.1")


RUMOUR = Rumour(NODE, Standing.LOST, 3, "n\u00e4me", "e" * 64, ("10.0.0.5:7433", "[fd00::5]:7433"))
HERE = "ipv4:10.0.0.9:51000"


def heard(*rumours: pb.Rumour, source: str = HERE) -> tuple[Rumour, ...]:
    return news_from_wire(pb.News(rumours=rumours), source).rumours


def test_news_come_back_as_they_were() -> None:
    news = News(7, bytes(range(256)) * 2, (RUMOUR,), (RUMOUR, dataclasses.replace(RUMOUR, schema="")))
    assert news_from_wire(pb.News.FromString(news_to_wire(news).SerializeToString()), HERE) == news
    assert news_from_wire(pb.HelloRequest().news, HERE) == NO_NEWS  # from an older node


@pytest.mark.parametrize(
    "bad",
    [
        {"node": ""},
        {"node": "A" * 5000},
        {"standing": 0},
        {"standing": 9},
        {"incarnation": INCARNATIONS},
        {"schema": "x"},
    ],
)
def test_a_rumour_that_cannot_be_true_is_dropped_and_the_next_is_taken(bad: dict[str, Any]) -> None:
    sound: dict[str, Any] = {"node": NODE, "standing": pb.STANDING_HERE}
    assert heard(pb.Rumour(**{**sound, **bad}), pb.Rumour(**sound)) == (Rumour(NODE, Standing.HERE),)


def test_news_are_cut_to_their_limits() -> None:
    rumour = pb.Rumour(node=NODE, standing=pb.STANDING_HERE, name="a\nb" + "x" * 1000, addresses=["10.0.0.5:1"] * 50)
    news = news_from_wire(
        pb.News(incarnation=2**60, digest=[0] * 1000, rumours=[rumour] * 50, known=[rumour] * 1000), HERE
    )
    assert (news.incarnation, len(news.digest), len(news.rumours), len(news.known)) == (2**48 - 1, 64 * 8, 17, 256)
    assert (len(news.known[0].name), len(news.known[0].addresses)) == (255, 3)
    assert news.known[0].name.startswith("a b")


@pytest.mark.parametrize(
    ("told", "source", "of_use"),
    [
        ("10.0.0.5:7433", HERE, True),
        ("127.0.0.1:7433", HERE, False),
        ("127.0.0.1:7433", "ipv4:127.0.0.1:51000", True),
        ("127.0.0.1:7433", "ipv6:%5B::1%5D:51000", True),
        ("127.0.0.1:7433", "dns:///localhost:7433", True),
        ("127.0.0.1:7433", "dns:///orin-a.local:7433", False),
        ("0.0.0.0:7433", HERE, False),
        ("224.0.0.1:7433", HERE, False),
        ("[fe80::1%eth0]:7433", HERE, False),
        ("somewhere:7433", HERE, False),
        ("nowhere", HERE, False),
        ("a" * 400 + ":1", HERE, False),
    ],
)
def test_what_is_told_of_a_third_node(told: str, source: str, of_use: bool) -> None:
    [rumour] = heard(pb.Rumour(node=NODE, standing=pb.STANDING_HERE, addresses=[told]), source=source)
    assert rumour.addresses == ((told,) if of_use else ())
