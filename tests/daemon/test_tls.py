"""Connections between nodes: who gets through, who does not, and what a stranger's connection costs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from cryptography import x509
from grpc.experimental.session_cache import SSLSessionCache, ssl_session_cache_lru

from decaf_node.daemon import rpc
from decaf_node.daemon.certificates import Issuer, issue_inviter, issue_member, pem_of
from decaf_node.daemon.channels import CHANNEL_OPTIONS
from decaf_node.daemon.identity import new_identity
from decaf_node.daemon.listening import HANDSHAKE_MS, IDLE_MS, SERVER_OPTIONS
from decaf_node.daemon.papers import Papers
from decaf_node.daemon.revocations import Revocations
from decaf_node.daemon.security import MutualTls, look, name_in
from decaf_node.daemon.wire import Introduction, Refusal, encode, introduction_to_wire
from decaf_node.errors import TryAgain
from decaf_node.mesh.events import HelloReceived, OfferReceived
from decaf_node.v1 import mesh_pb2, mesh_pb2_grpc
from tests.daemon.ends import SCHEMA, End, acquaint, end, offer
from tests.daemon.trusted import Authority

LAB, OTHER = Authority("lab"), Authority("lab")


@asynccontextmanager
async def member(folder: Path, papers: Papers, revocations: Revocations | None = None) -> AsyncIterator[End]:
    async with end(papers.node, folder, security=MutualTls(papers, revocations)) as this:
        yield this


@asynccontextmanager
async def caller(
    address: str, papers: Papers | None, sessions: SSLSessionCache | None = None
) -> AsyncIterator[mesh_pb2_grpc.MeshAsyncStub]:
    """Give the service at ``address`` to somebody who believes whoever answers, and shows these papers.

    sessions: of TLS, which it resumes
    """
    shown = await look(address)
    credentials = grpc.ssl_channel_credentials(
        pem_of((shown,)),
        None if papers is None else papers.key_pem,
        None if papers is None else pem_of(papers.chain),
    )
    options = [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", name_in(shown))]
    options += [] if sessions is None else [("grpc.ssl_session_cache", sessions)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        yield mesh_pb2_grpc.MeshStub(channel)


def hello(node: str) -> mesh_pb2.HelloRequest:
    who = Introduction(node, "x", "lab", SCHEMA, 1, "")
    request = mesh_pb2.HelloRequest()
    getattr(request, "from").CopyFrom(introduction_to_wire(who))
    return request


async def refused(stub: mesh_pb2_grpc.MeshAsyncStub, node: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Hello(hello(node), timeout=3.0)
    return caught.value


async def test_members_meet_and_each_knows_whom(tmp_path: Path) -> None:
    one, two = LAB.papers(), LAB.papers()
    async with member(tmp_path, one) as a, member(tmp_path, two) as b:
        acquaint(a, b)
        assert (await a.dialler.hello(two.node)).who.node == two.node
        assert (await b.seen(HelloReceived)).peer == one.node
        a.edges.open(two.node, offer(a.publish()), ())
        assert (await b.seen(OfferReceived)).peer == one.node


async def test_a_stranger_gets_nowhere(tmp_path: Path) -> None:
    papers = LAB.papers()
    async with member(tmp_path, papers) as a:
        async with caller(a.me.address, None) as stub:
            assert (await refused(stub, "A" * 52)).code() is grpc.StatusCode.UNAVAILABLE
        async with grpc.aio.insecure_channel(a.me.address) as channel:
            plain = mesh_pb2_grpc.MeshStub(channel)
            assert (await refused(plain, "A" * 52)).code() is grpc.StatusCode.UNAVAILABLE
        for theirs in (OTHER.papers(), LAB.papers(lifetime=60.0, now=time.time() - 3600)):
            async with caller(a.me.address, theirs) as stub:
                assert (await refused(stub, theirs.node)).code() is grpc.StatusCode.UNAVAILABLE
        assert a.events == []


async def test_nobody_is_asked_who_shows_another_meshs_certificate_or_none(tmp_path: Path) -> None:
    mine, theirs = LAB.papers(), OTHER.papers()
    expired = LAB.papers(lifetime=60.0, now=time.time() - 3600)
    async with member(tmp_path, mine) as a:
        async with member(tmp_path, theirs) as b:
            with pytest.raises(TryAgain, match="no good here"):
                await a.dialler.ask(b.me.address, a.tells)
        async with member(tmp_path, expired) as b:
            with pytest.raises(TryAgain, match="certificate has expired"):
                await a.dialler.ask(b.me.address, a.tells)
        async with end("M" * 52, tmp_path) as plain:
            with pytest.raises(TryAgain, match="TLS"):
                await a.dialler.ask(plain.me.address, a.tells)
            assert plain.events == []


async def test_who_lies_about_its_id_is_refused_at_both_ends(tmp_path: Path) -> None:
    mine, liar = LAB.papers(), LAB.papers()
    victim = "V" * 52
    async with member(tmp_path, mine) as a:
        async with caller(a.me.address, liar) as stub:
            assert "[security.other-id]" in (str((await refused(stub, victim)).details()))
            call = stub.Exchange()
            await call.write(encode(Introduction(victim, "x", "lab", SCHEMA, 1, "")))
            answer = await call.read()
            assert isinstance(answer, mesh_pb2.Frame)
            assert answer.refusal.reason == "security.other-id"
            call.cancel()
        assert a.events == []
        async with end(victim, tmp_path, security=MutualTls(liar, None)) as b:  # its certificate says another
            a.dialler.learn(victim, (b.me.address,))
            with pytest.raises(TryAgain, match="its certificate is"):
                await a.dialler.hello(victim)
            a.edges.open(victim, offer(a.publish()), ())
            await asyncio.sleep(0)
        async with member(tmp_path, liar) as c:
            a.dialler.learn("W" * 52, (c.me.address,))
            with pytest.raises(TryAgain, match="another node answers"):
                await a.dialler.hello("W" * 52)


async def test_an_inviter_cannot_be_somebody_else(tmp_path: Path) -> None:
    """The names in a certificate count for nothing: the hash of its key does."""
    mine, inviter, stolen = LAB.papers(), new_identity(), new_identity()
    signs = issue_inviter(LAB.issuer, inviter.key.public_key(), time.time(), 1000.0)
    chain = issue_member(Issuer(signs, inviter.key, (signs,)), stolen.key.public_key(), time.time(), 1000.0)
    theirs = Papers(stolen.node, stolen.private_key_pem, chain, (LAB.issuer.certificate,))
    async with member(tmp_path, mine) as a, member(tmp_path, theirs) as b:
        acquaint(b, a)
        assert (await b.dialler.hello(mine.node)).who.node == mine.node
        async with caller(a.me.address, theirs) as stub:
            assert "[security.other-id]" in str((await refused(stub, inviter.node)).details())


async def test_the_revoked_are_refused_at_both_ends(tmp_path: Path) -> None:
    mine, out = LAB.papers(), LAB.papers()
    (tmp_path / "r").mkdir()
    revocations = Revocations(tmp_path / "r", LAB.issuer.certificate)
    async with member(tmp_path, mine, revocations) as a, member(tmp_path, out) as b:
        acquaint(a, b)
        acquaint(b, a)
        await a.dialler.hello(out.node)
        revocations.revoke(LAB.issuer, out.node, frozenset(), time.time())
        a.dialler.distrust(b.me.address)
        with pytest.raises(TryAgain, match="no member any more"):
            await a.dialler.hello(out.node)
        with pytest.raises(TryAgain, match="no member any more"):
            await b.dialler.hello(mine.node)
        b.edges.open(mine.node, offer(b.publish()), ())
        refusal = await refusal_of(a, out)
        assert refusal.reason == "security.revoked"


class Noting(MutualTls):
    """Notes of each call whether its session of TLS was resumed."""

    def __init__(self, papers: Papers, revocations: Revocations) -> None:
        super().__init__(papers, revocations, clock=lambda: self.now)
        self.now = time.time()
        self.resumed: list[bool] = []

    def shown(self, context: grpc.aio.ServicerContext[Any, Any]) -> x509.Certificate:
        self.resumed.append(list((context.auth_context() or {})["ssl_session_reused"]) == [b"true"])
        return super().shown(context)


async def test_a_resumed_session_lets_in_nobody_whom_a_new_one_would_not(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    revocations = Revocations(tmp_path / "r", LAB.issuer.certificate)
    security, late, out = Noting(LAB.papers(), revocations), LAB.papers(lifetime=3600.0), LAB.papers()
    lates, outs = (ssl_session_cache_lru(4) for _ in range(2))  # type: ignore[no-untyped-call]
    async with end(security.papers.node, tmp_path, security=security) as a:
        for papers, sessions in ((late, lates), (out, outs)):
            async with caller(a.me.address, papers, sessions) as stub:
                await stub.Hello(hello(papers.node), timeout=3.0)
        assert not any(security.resumed)
        security.resumed.clear()
        revocations.revoke(LAB.issuer, out.node, frozenset(), time.time())
        async with caller(a.me.address, out, outs) as stub:
            assert "[security.revoked]" in str((await refused(stub, out.node)).details())
        security.now += 7200.0
        async with caller(a.me.address, late, lates) as stub:
            assert "[certificate.expired]" in str((await refused(stub, late.node)).details())
        assert security.resumed
        assert all(security.resumed)


async def refusal_of(a: End, papers: Papers) -> Refusal:
    """Open a stream to ``a``; return what it refuses it with."""
    async with caller(a.me.address, papers) as stub:
        call = stub.Exchange()
        answer = await call.read()
        assert isinstance(answer, mesh_pb2.Frame)
        return Refusal(answer.refusal.reason, answer.refusal.message)


async def test_a_new_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    mine, two = LAB.papers(), LAB.papers()
    tls = MutualTls(mine, None)
    async with end(mine.node, tmp_path, security=tls) as a, member(tmp_path, two) as b:
        acquaint(b, a)
        await b.dialler.hello(mine.node)
        before = await look(a.me.address)
        key = new_identity()
        chain = issue_member(LAB.issuer, key.key.public_key(), time.time(), 1000.0)
        tls.renew(Papers(key.node, key.private_key_pem, chain, mine.authorities))
        assert await look(a.me.address) == chain[0] != before


async def test_tls_before_1_3_is_refused(tmp_path: Path) -> None:
    async with member(tmp_path, LAB.papers()) as a:
        host, _, port = a.me.address.rpartition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.transport.abort()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(host, int(port), ssl=context)


@pytest.mark.slow
async def test_connections_that_say_nothing_are_in_nobodys_way_and_dropped(tmp_path: Path) -> None:
    one, two = LAB.papers(), LAB.papers()
    async with member(tmp_path, one) as a, member(tmp_path, two) as b:
        host, _, port = a.me.address.rpartition(":")
        acquaint(b, a)
        memory = psutil.Process().memory_info().rss
        silent = [socket.create_connection((host, int(port))) for _ in range(400)]
        try:
            started = time.monotonic()
            assert (await b.dialler.hello(one.node)).who.node == one.node
            assert time.monotonic() - started < 2.0
            assert psutil.Process().memory_info().rss - memory < 64e6
            reader, writer = await asyncio.open_connection(sock=silent.pop())
            assert await asyncio.wait_for(reader.read(), HANDSHAKE_MS / 1000 + 5) == b""
            writer.close()
        finally:
            for each in silent:
                each.close()


async def test_a_connection_without_a_call_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dict(SERVER_OPTIONS)["grpc.max_connection_idle_ms"] == IDLE_MS == 60_000
    sooner = [(name, 300 if name == "grpc.max_connection_idle_ms" else value) for name, value in SERVER_OPTIONS]
    monkeypatch.setattr(rpc, "SERVER_OPTIONS", sooner)
    one, two = LAB.papers(), LAB.papers()
    async with member(tmp_path, one) as a, member(tmp_path, two) as b:
        acquaint(b, a)
        await b.dialler.hello(one.node)
        port = a.me.address.rpartition(":")[2]

        def connections() -> int:
            return sum(
                bool(each.raddr) and each.raddr.port == int(port) and each.status == psutil.CONN_ESTABLISHED
                for each in psutil.Process().net_connections("tcp")
            )

        for _ in range(200):
            if not connections():
                break
            await asyncio.sleep(0.05)
        assert connections() == 0
        assert (await b.dialler.hello(one.node)).who.node == one.node, "it is opened again"


async def test_plaintext_is_answered_with_nothing(tmp_path: Path) -> None:
    async with member(tmp_path, LAB.papers()) as a:
        host, _, port = a.me.address.rpartition(":")
        for words in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 4096):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(words)
            with contextlib.suppress(ConnectionError):
                said = await asyncio.wait_for(reader.read(), 5.0)
                assert b"HTTP" not in said
                assert len(said) < 100
            writer.close()
        assert a.events == []


async def test_an_endless_header_costs_no_memory(tmp_path: Path) -> None:
    """A member sends one header without end: what is beyond the limit is thrown away, and the others are served."""
    mine, liar = LAB.papers(), LAB.papers()
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    key.write_bytes(liar.key_pem)
    chain.write_bytes(pem_of(liar.chain))
    async with member(tmp_path, mine) as a:
        host, _, port = a.me.address.rpartition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(chain, key)
        context.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        memory = psutil.Process().memory_info().rss
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        writer.write(frame(1, 0, 1, b"\x00\x01x" + b"\x7f\xff\xff\xff\x0f"))  # a value of two gigabytes begins
        sent = 0
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while sent < 64e6 and not reader.at_eof():
                writer.write(frame(9, 0, 1, b"a" * 16384))
                await writer.drain()
                sent += 16384
                await asyncio.sleep(0)
        two = LAB.papers()
        async with member(tmp_path, two) as b:
            acquaint(b, a)
            assert (await b.dialler.hello(mine.node)).who.node == mine.node
        assert psutil.Process().memory_info().rss - memory < 32e6
        writer.transport.abort()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
