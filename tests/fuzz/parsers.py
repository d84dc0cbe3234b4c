"""Every parser that reads what comes from the network or from a token: what it is fed, and what it may do.

A parser returns or raises one of our own errors, whatever comes. Anything else is a crash. What it returns is used
as the daemon uses it: written again, printed, compared.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import io
import json
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError, Message
from zeroconf import ServiceStateChange
from zeroconf._cache import DNSCache
from zeroconf._dns import DNSPointer
from zeroconf._protocol.incoming import DNSIncoming
from zeroconf._protocol.outgoing import DNSOutgoing
from zeroconf.asyncio import AsyncServiceInfo

from decaf_node import link
from decaf_node.cli import words
from decaf_node.cli.looking import peer_table
from decaf_node.cli.output import json_text
from decaf_node.cli.screen import status_screen
from decaf_node.daemon import addresses, lan, report_wire, rpc_errors
from decaf_node.daemon.alert_wire import alert_from_wire, alert_to_wire
from decaf_node.daemon.certificates import (
    Issuer,
    check_chain,
    fingerprint,
    found_authority,
    inviter_of,
    issue_inviter,
    issue_member,
    load_shown,
    pem_of,
    read_chain,
    read_request,
    request_of,
)
from decaf_node.daemon.crl import read_lists
from decaf_node.daemon.dial import read_answer
from decaf_node.daemon.discovery import SERVICE, Discovery
from decaf_node.daemon.identity import new_identity
from decaf_node.daemon.join_token import JoinToken, read_token, write_token
from decaf_node.daemon.joining import read_admission, read_parts
from decaf_node.daemon.news_wire import news_from_wire, news_to_wire
from decaf_node.daemon.node_id import node_of, printed, read_node
from decaf_node.daemon.papers import Papers
from decaf_node.daemon.revocations import CONTEXT, Revocations
from decaf_node.daemon.security import MutualTls, name_in
from decaf_node.daemon.signing import key_in
from decaf_node.daemon.topology_wire import topology_from_wire, topology_to_wire
from decaf_node.daemon.trust_wire import (
    Body,
    Revoked,
    Signed,
    read_body,
    read_signed,
    signed_from_wire,
    signed_to_wire,
    write_body,
    write_signed,
)
from decaf_node.daemon.wire import (
    Chunk,
    Introduction,
    Refusal,
    Want,
    decode,
    encode,
    introduction_from_wire,
    introduction_to_wire,
)
from decaf_node.errors import BadData, DecafError
from decaf_node.mesh.events import Offer, Receipt, Snapshot
from decaf_node.mesh.rumours import News, Rumour, Standing
from decaf_node.settings import DiscoverySection, parse_settings
from decaf_node.snapshot import FORMAT, parse_header
from decaf_node.training.agreement import compare
from decaf_node.v1 import enrolment_pb2, mesh_pb2, monitor_pb2
from tests.daemon.scripted_trainer import snapshot_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NOW = time.time()
DAY = 86400.0
SOURCE = "ipv4:127.0.0.1:5"


@dataclass(frozen=True)
class Parser:
    """One way in. seeds: good input, and what was found."""

    name: str
    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def survives(parser: Parser, data: bytes) -> bool:
    """Have the parser read ``data``; say whether it took it. What it must not raise goes through."""
    try:
        parser.read(data)
    except DecafError as error:
        problem: DecafError | None = error
    else:
        problem = None
    assert problem is None or (problem.reason and "\n" not in problem.message)
    return problem is None


# --- what the seeds are made of ----------------------------------------------------------------------------------

MINE, OTHERS, INVITER = new_identity(), new_identity(), new_identity()
AUTHORITY = found_authority("lab", NOW)
SIGNS = issue_inviter(AUTHORITY, INVITER.key.public_key(), NOW, DAY)
MEMBER = issue_member(AUTHORITY, MINE.key.public_key(), NOW, DAY)
INVITED = issue_member(Issuer(SIGNS, INVITER.key, (SIGNS,)), MINE.key.public_key(), NOW, DAY)
DIGEST, OTHER = "ab" * 32, "cd" * 32
INTRODUCTION = Introduction(
    MINE.node, "näme", "lab", "e" * 64, 12, "127.0.0.1:7433", instance="0" * 16, revocations=3, loss=0.5, base="f" * 64,
    label_parts=(0.25, 0.75),
)  # fmt: skip
RUMOUR = Rumour(OTHERS.node, Standing.LOST, 7, "other", "e" * 64, ("127.0.0.1:7433", "[::1]:7433"))
NEWS = News(5, bytes(range(64)) * 8, (RUMOUR,), (RUMOUR, Rumour(INVITER.node, Standing.HERE)))
REVOCATIONS = Revocations(Path("/none"), AUTHORITY.certificate)  # nothing is kept
TLS = MutualTls(Papers(MINE.node, MINE.private_key_pem, MEMBER, (AUTHORITY.certificate,)), REVOCATIONS)


WHOLE = snapshot_bytes(1.0, 3, "e" * 64, 16)


def _der(*chain: Any) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.DER) for each in chain)


def _signed_list() -> bytes:
    entries = (Revoked(OTHERS.node, int(NOW), frozenset({MINE.node})), Revoked(INVITER.node, 0))
    body = write_body(Body(fingerprint(AUTHORITY.certificate), 1, entries))
    return write_signed(Signed(body, AUTHORITY.key.sign(CONTEXT + body, ec.ECDSA(hashes.SHA256()))))


# --- from the network: protobuf ----------------------------------------------------------------------------------


def _parsed(kind: Callable[[], Message], data: bytes) -> Any:
    """Parse as gRPC does before it calls us: what is no message ends the call."""
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise BadData("fuzz.no-message", "It is no message.") from None
    return message


def _frame(data: bytes) -> None:
    message = _parsed(mesh_pb2.Frame, data)
    frame = decode(message)
    assert decode(mesh_pb2.Frame.FromString(encode(frame).SerializeToString())) == frame


def _hello(data: bytes) -> None:
    message = _parsed(mesh_pb2.HelloRequest, data)
    who = introduction_from_wire(getattr(message, "from"))
    introduction_to_wire(who).SerializeToString()
    addresses.from_source(who.address, SOURCE)
    news_to_wire(news_from_wire(message.news, SOURCE)).SerializeToString()


def _hello_reply(data: bytes) -> None:
    message = _parsed(mesh_pb2.HelloReply, data)
    answer = read_answer(message, "", "127.0.0.1:7433")
    assert answer.clone.isprintable()


def _revocations(data: bytes) -> None:
    message = _parsed(mesh_pb2.RevocationsRequest, data)
    signed = signed_from_wire(message.revocations)
    signed_to_wire(signed)
    REVOCATIONS.check(signed)


def _enrol(data: bytes) -> None:
    message = _parsed(enrolment_pb2.EnrolRequest, data)
    printed(node_of(read_request(message.signing_request)))


def _enrolled(data: bytes) -> None:
    message = _parsed(enrolment_pb2.EnrolReply, data)
    read_admission(message, "lab", AUTHORITY.certificate, "127.0.0.1:7434", MINE.node)


def _mesh_reply(data: bytes) -> None:
    message = _parsed(enrolment_pb2.GetMeshReply, data)
    found = read_chain(message.authority, "it")[0]
    between = read_chain(message.between, "it") if message.between else ()
    check_chain((INVITED[0], *between), found, NOW)


def _status(data: bytes) -> None:
    message = _parsed(monitor_pb2.GetStatusReply, data)
    report = report_wire.status_from_wire(message)
    report_wire.status_to_wire(report)
    json_text(dataclasses.asdict(report))
    status_screen(report, [], [])


def _topology(data: bytes) -> None:
    report = topology_from_wire(_parsed(monitor_pb2.GetTopologyReply, data))
    topology_to_wire(report)
    json_text(dataclasses.asdict(report))


def _alerts(data: bytes) -> None:
    alerts = [alert_from_wire(alert) for alert in _parsed(monitor_pb2.ListAlertsReply, data).alerts]
    for alert in alerts:
        alert_to_wire(alert)
        words.clock(alert.since)
        json_text(dataclasses.asdict(alert))


def _peers(data: bytes) -> None:
    message = _parsed(monitor_pb2.ListPeersReply, data)
    peers = [report_wire.peer_from_wire(peer) for peer in message.peers]
    for peer in peers:
        report_wire.peer_to_wire(peer)
        json_text(dataclasses.asdict(peer))
    peer_table(peers)


def _rounds(data: bytes) -> None:
    message = _parsed(monitor_pb2.ListRoundsReply, data)
    for row in map(report_wire.round_from_wire, message.rounds):
        report_wire.round_to_wire(row)
        json_text(dataclasses.asdict(row))
        words.clock(row.time), words.size(row.sent_bytes)
        words.duration(row.train_seconds), words.percent(row.evaluation_accuracy)


# --- from the network: certificates ------------------------------------------------------------------------------


def _shown(data: bytes) -> None:
    """A peer shows this in TLS."""
    certificate = load_shown(data)
    name_in(certificate)
    TLS.admit(certificate)
    key_in(certificate)


def _chain(data: bytes) -> None:
    """Somebody sends this as a member's certificate. Made PEM, so that changes hurt the certificate and not that."""
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(data) + b"-----END CERTIFICATE-----\n"
    chain = read_chain(pem + pem_of((SIGNS,)), "it")
    assert inviter_of(chain[0]) is not None
    check_chain(chain, AUTHORITY.certificate, NOW)


def _pem(data: bytes) -> None:
    check_chain(read_chain(data, "it"), AUTHORITY.certificate, NOW)


def _crl(data: bytes) -> None:
    read_lists(data, (AUTHORITY.certificate,), NOW, "it")


def _revoking() -> bytes:
    then = datetime.fromtimestamp(NOW - 60, timezone.utc)
    builder = x509.CertificateRevocationListBuilder().issuer_name(AUTHORITY.certificate.subject)
    builder = builder.last_update(then).next_update(then + timedelta(days=1))
    for number in (5, 2**64):
        entry = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(then)
        entry = entry.add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(AUTHORITY.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _request(data: bytes) -> None:
    printed(node_of(read_request(data)))


# --- from the network: the rest ----------------------------------------------------------------------------------


def _mdns(data: bytes) -> None:
    """A packet is taken as zeroconf takes it, and every service that it speaks of is looked at."""
    packet = DNSIncoming(data)
    if not packet.valid:
        return
    cache = DNSCache()
    records = packet.answers()
    cache.async_add_records(records)
    zeroconf: Any = SimpleNamespace(cache=cache)
    discovery = Discovery(MINE.node, "me", "lab", 1, DiscoverySection(), _nothing, _nothing, warn=_nothing)
    discovery._closed = True  # nobody is asked for more
    for record in records:
        if (name := getattr(record, "alias", None)) is not None:
            discovery._changed(zeroconf, SERVICE, name, ServiceStateChange.Added)
            discovery._changed(zeroconf, SERVICE, name, ServiceStateChange.Removed)
            lan.read_door(zeroconf, name, ())


def _nothing(*_: object) -> None:
    """Take whatever is told."""


def _packet(node: str, properties: dict[str, str], host: str = "host.local.") -> bytes:
    info = AsyncServiceInfo(
        SERVICE, f"{node}.{SERVICE}", 7433, properties=properties, server=host, parsed_addresses=["127.0.0.1", "::1"]
    )
    out = DNSOutgoing(0x8400)
    for record in (info.dns_pointer(), info.dns_service(), info.dns_text(), *info.dns_addresses()):
        out.add_answer_at_time(record, 0)
    return bytes(out.packets()[0])


def _pointer(alias: str) -> bytes:
    out = DNSOutgoing(0x8400)
    out.add_answer_at_time(DNSPointer(SERVICE, 12, 1, 120, alias), 0)
    return bytes(out.packets()[0])


def _header(data: bytes) -> None:
    header = parse_header(io.BytesIO(data), len(data), "it")
    json.dumps(header.metadata()).encode()


def _long_header(document: bytes) -> bytes:
    return struct.pack("<Q", len(document)) + document


def _header_document(data: bytes) -> None:
    """The header's JSON alone, with the length that it should have, so that changes hurt what is in it."""
    _header(_long_header(data) + bytes(DATA_BYTES))


def _said(data: bytes) -> None:
    """An error that the other end of a call has ended it with."""

    class Failed(grpc.RpcError):
        def trailing_metadata(self) -> Any:
            reason, _, rest = data.decode("utf-8", "replace").partition("|")
            return ((rpc_errors.REASON, reason), (rpc_errors.EXIT_CODE, rest.partition("|")[0]))

        def details(self) -> str:
            return data.decode("utf-8", "replace").rpartition("|")[2]

    error = rpc_errors.error_of(Failed())
    assert error is None or str(error).isprintable()


def _address(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    if addresses.split(text) is not None:
        assert addresses.target(text)
    addresses.from_source(text, SOURCE), addresses.from_source("0.0.0.0:1", text)
    addresses.is_of_use(text, SOURCE), addresses.is_of_use("127.0.0.1:1", text)
    addresses.host_of(text)


def _token(data: bytes) -> None:
    token = read_token(data.decode("utf-8", "replace"))
    assert read_token(write_token(token)) == token


def _unchecked_token(data: bytes) -> None:
    """What is in a token, with a check of its own, so that changes get through to it."""
    import base64

    whole = data + hashlib.sha256(data).digest()[:4]
    _token(b"decaf1-" + base64.urlsafe_b64encode(whole).rstrip(b"="))


def _node_id(data: bytes) -> None:
    assert read_node(printed(read_node(data.decode("utf-8", "replace"))))


def _link(data: bytes) -> None:
    link.decode(link.encode(link.decode(data)))


def _parts(data: bytes) -> None:
    compare(read_parts(data), parse_settings(tomllib.loads(TOML.decode()), "it"), lambda: None)


def _settings(data: bytes) -> None:
    try:
        document = tomllib.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return
    parse_settings(document, "it")


def _frames() -> tuple[bytes, ...]:
    snapshot = Snapshot(DIGEST, 3, 8, 1000)
    frames = (
        INTRODUCTION,
        Offer("e" * 64, snapshot, 3, 2, 1, turn=9),
        Offer("", None, 0, 0, 0, adopt=True),
        Want(DIGEST, 2**40),
        Chunk(5, b"x" * 100),
        Receipt(DIGEST, OTHER, 0.25),
        Refusal("mesh.other-schema", "Why not."),
    )
    return tuple(encode(frame).SerializeToString() for frame in frames)


def _introduced(kind: Any, **fields: Any) -> bytes:
    message = kind(**fields)
    getattr(message, "from").CopyFrom(introduction_to_wire(INTRODUCTION))
    return bytes(message.SerializeToString())


def _round() -> Any:
    return monitor_pb2.Round(
        round=3, time=NOW, steps=20, loss=0.5, train_seconds=1.0, exchange_seconds=2.0, mix_seconds=0.1, tail=0.1,
        edges=[monitor_pb2.Edge(node=OTHERS.node, weight=0.5, distance=1.0)], interference=0.2, norm=3.0,
        consensus_distance=1.0, sent_bytes=1000, received_bytes=1000, evaluation_loss=0.4, evaluation_accuracy=0.5,
        saved=True,
    )  # fmt: skip


def _glance() -> bytes:
    trainer = monitor_pb2.Trainer(pid=5, state="ready", device="cpu", rank=8, parameters=1000, loss=0.5, step=3)
    return monitor_pb2.GetStatusReply(
        node=MINE.node, name="a", mesh="lab", version="1", instance="0", phase="training", round=3, saved_round=2,
        waiting_for=[OTHERS.node], uptime_seconds=1e5, resident_bytes=10**8, address="127.0.0.1:7433", trainer=trainer,
        last_round=_round(), sent_bytes=5, received_bytes=5, state_folder="/s", adapter_folder="/a",
        privacy=monitor_pb2.Privacy(epsilon=3.0, delta=1e-5, spent=0.5, steps=100, steps_left=900, noise=1.1),
    ).SerializeToString()  # fmt: skip


def _listed() -> bytes:
    peer = monitor_pb2.Peer(
        node=OTHERS.node, name="b", state="alive", addresses=["127.0.0.1:7433"], neighbour=True, round=3,
        heard_seconds=0.5, weight=0.5, distance=1.0, mixes=3, loss=0.5,
        clip_factor=0.5, plain_distance=1.0, harm=0.1,
    )  # fmt: skip
    return monitor_pb2.ListPeersReply(peers=[peer]).SerializeToString()


def _messages() -> tuple[bytes, ...]:
    file = link.File("/a", DIGEST, 100)
    said: tuple[link.Message, ...] = (
        link.TrainerConnected(5),
        link.TrainerReady("e" * 64, "b" * 64, 8, 1000, "cpu", {"targets": {"q": [1, 2]}}, (0.25, 0.75)),
        link.Progress(1, 2, 0.5, 3.0),
        link.RoundTrained(1, file, 8, 20, 0.5, 1.0, (0.25, 0.75)),
        link.SnapshotInspected(DIGEST, True, 1.0, 2.0),
        link.RoundMixed(1, 2, 0.1, 0.2, 0.3, 0.4),
        link.Evaluated(1, 0.5, None, 10, 1.0),
        link.MixRound(1, (link.MixEdge(OTHERS.node, 0.5, file, file),), (0.5, 0.5)),
        link.TrainerFailed("model.missing", "There is no model.", 65, True),
    )
    return tuple(link.encode(message) for message in said)


def _documents() -> tuple[bytes, ...]:
    (length,) = struct.unpack("<Q", WHOLE[:8])
    odd = {"__metadata__": {"format": FORMAT, "schema": "", "base": "", "round": "9" * 5000, "scales": "{}"}}
    return WHOLE[8 : 8 + length], json.dumps(odd).encode()


def _drawn() -> bytes:
    members = [
        monitor_pb2.Member(node=node, name="a", state="alive", round=3, degree=1) for node in ("A" * 52, "B" * 52)
    ]
    link = monitor_pb2.Link(one="A" * 52, other="B" * 52, weight=0.5, current=True)
    return monitor_pb2.GetTopologyReply(
        graph="full", topology="auto", node="A" * 52, members=members, links=[link], link_count=1, turns=1
    ).SerializeToString()


def _complaint() -> bytes:
    alert = monitor_pb2.Alert(
        id="disk.full", severity="critical", place="disk", since=1.5e9, sentence="It is full.", remedy="Make room."
    )
    return monitor_pb2.ListAlertsReply(alerts=[alert]).SerializeToString()


SIGNED = _signed_list()
DATA_BYTES = len(WHOLE) - 8 - len(_documents()[0])
TOKEN = JoinToken("lab", ("127.0.0.1:7434", "[::1]:7434"), bytes(32), bytes(16))
TOML = b"""[model]\npath = "m"\n[data]\ntrain = ["d"]\n[lora]\nr = 8\n[round]\nseconds = 5.5\nalgorithm = "decaf"
[limits]\nspool_bytes = 100\n[mesh]\nname = "lab"\npeers = ["127.0.0.1:7433"]\n"""
TWICE = _der(MEMBER[0]).replace(b"\x06\x03\x55\x1d\x0f", b"\x06\x03\x55\x1d\x0e")  # an extension that comes twice
CHAINS = (_der(INVITED[0]), _der(MEMBER[0]), _der(SIGNS), _der(AUTHORITY.certificate), TWICE)

PARSERS: tuple[Parser, ...] = (
    Parser("frame", _frame, _frames()),
    Parser("hello", _hello, (_introduced(mesh_pb2.HelloRequest, news=news_to_wire(NEWS)),)),
    Parser(
        "hello-reply", _hello_reply, (_introduced(mesh_pb2.HelloReply, news=news_to_wire(NEWS), clone="1.2.3.4:5"),)
    ),
    Parser(
        "revocations",
        _revocations,
        (mesh_pb2.RevocationsRequest(revocations=signed_to_wire(read_signed(SIGNED))).SerializeToString(),),
    ),
    Parser("revocations-body", read_body, (read_signed(SIGNED).body,)),
    Parser("revocations-file", read_signed, (SIGNED,)),
    Parser(
        "enrol",
        _enrol,
        (
            enrolment_pb2.EnrolRequest(
                secret=b"s" * 16, signing_request=request_of(MINE.key), name="me"
            ).SerializeToString(),
        ),
    ),
    Parser(
        "enrolled",
        _enrolled,
        (
            enrolment_pb2.EnrolReply(
                certificate=pem_of(INVITED), members=["127.0.0.1:7433"], schema="e" * 64
            ).SerializeToString(),
        ),
    ),
    Parser(
        "mesh-reply",
        _mesh_reply,
        (
            enrolment_pb2.GetMeshReply(
                mesh="lab", authority=pem_of((AUTHORITY.certificate,)), between=pem_of((SIGNS,))
            ).SerializeToString(),
        ),
    ),
    Parser("shown-certificate", _shown, CHAINS),
    Parser("chain", _chain, CHAINS),
    Parser("chain-pem", _pem, (pem_of(MEMBER), pem_of(INVITED))),
    Parser("crl", _crl, (_revoking(),)),
    Parser("signing-request", _request, (request_of(MINE.key),)),
    Parser(
        "mdns",
        _mdns,
        (
            _packet(OTHERS.node, {"id": OTHERS.node, "mesh": "lab", "v": "1", "schema": "e" * 64, "join": "7434"}),
            _packet(MINE.node, {"id": MINE.node, "mesh": "lab", "v": "1", "schema": ""}),
            _packet(OTHERS.node, {"mesh": "lab", "join": "9" * 250}),
            _pointer("x.other._tcp.local."),
            _pointer(SERVICE),
        ),
    ),
    Parser("snapshot", _header, (WHOLE, gzip.compress(WHOLE, mtime=0))),
    Parser("snapshot-header", _header_document, _documents()),
    Parser("refusal", _said, (b"join.token-used|77|The invitation was used up.", "a|\u00b2|b".encode())),
    Parser(
        "address",
        _address,
        (b"127.0.0.1:7433", b"[fe80::1%eth0]:7433", b"ipv6:%5B::1%5D:5", b"host.example:7433", b"h:" + b"9" * 5000),
    ),
    Parser("token", _token, (write_token(TOKEN).encode(),)),
    Parser("token-inside", _unchecked_token, (bytes(48) + b"\x03lab\x0e127.0.0.1:7434",)),
    Parser("node-id", _node_id, (MINE.node.encode(), printed(MINE.node).encode())),
    Parser("link", _link, _messages()),
    Parser("parts", _parts, (b'{"base":"b","targets":{"q":[1,2]},"task":"causal-lm","labels":[]}',)),
    Parser("settings", _settings, (TOML,)),
    Parser("status", _status, (_glance(),)),
    Parser("peers", _peers, (_listed(),)),
    Parser("rounds", _rounds, (monitor_pb2.ListRoundsReply(rounds=[_round()]).SerializeToString(),)),
    Parser("topology", _topology, (_drawn(),)),
    Parser("alerts", _alerts, (_complaint(),)),
)
