"""Joining against somebody in between, damaged answers and a listener that is not one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from decaf_node.daemon.certificates import fingerprint, issue_member, pem_of, request_of
from decaf_node.daemon.enrolment import Enrolment
from decaf_node.daemon.identity import new_identity
from decaf_node.daemon.join_token import JoinToken, read_token
from decaf_node.daemon.joining import Admission, join_by_approval, join_by_token, keep_admission, read_parts
from decaf_node.daemon.papers import Papers, is_member
from decaf_node.daemon.problems import Problems
from decaf_node.daemon.security import look, name_in
from decaf_node.daemon.trust import OwnMesh, load_trust
from decaf_node.errors import BadData, BadSettings, DecafError
from decaf_node.settings import Settings, parse_settings
from decaf_node.v1 import enrolment_pb2 as pb
from decaf_node.v1 import enrolment_pb2_grpc
from tests.daemon.trusted import Authority

LAB, MALLORY = Authority("lab"), Authority("lab")
ME = new_identity()
SECRET = bytes(16)


def settings() -> Settings:
    return parse_settings(
        {
            "mesh": {"name": "lab"},
            "listen": {"enrolment_port": 0},
            "model": {"path": "m"},
            "data": {"train": ["d"]},
        },
        "the test",
    )


@asynccontextmanager
async def listener(folder: Path) -> AsyncIterator[Enrolment]:
    """Give a founder's enrolment."""
    LAB.found(folder)
    own = load_trust(folder / "identity", settings().security, plaintext=False)
    assert isinstance(own, OwnMesh)
    enrolment = Enrolment(
        own, settings(), lambda: ["127.0.0.1:7433", "nonsense"], lambda: None, lambda _: None, Problems()
    )
    running = asyncio.create_task(enrolment.run())
    try:
        yield enrolment
    finally:
        running.cancel()
        await asyncio.wait({running})


class Between(enrolment_pb2_grpc.EnrolmentServicer):
    """Somebody who answers in the place of a member, and notes what he is told."""

    def __init__(self, papers: Papers, says: Authority, between: bytes = b"", chain: bytes = b"") -> None:
        self.secrets: list[bytes] = []
        self.papers = papers
        self._says = says
        self._between = between
        self._chain = chain

    async def GetMesh(self, request: pb.GetMeshRequest, context: Any) -> pb.GetMeshReply:
        authority = pem_of((self._says.issuer.certificate,))
        return pb.GetMeshReply(mesh="lab", authority=authority, between=self._between)

    async def Enrol(self, request: pb.EnrolRequest, context: Any) -> pb.EnrolReply:
        self.secrets.append(request.secret)
        return pb.EnrolReply(certificate=self._chain)


@asynccontextmanager
async def serving(between: Between) -> AsyncIterator[str]:
    server = grpc.aio.server()
    enrolment_pb2_grpc.add_EnrolmentServicer_to_server(between, server)
    credentials = grpc.ssl_server_credentials([(between.papers.key_pem, pem_of(between.papers.chain))])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def agree(mesh: str, parts: dict[str, Any]) -> None:
    assert mesh == "lab"


def recognise(found: bytes) -> None:
    assert found == fingerprint(LAB.issuer.certificate)


def token(*addresses: str) -> JoinToken:
    return JoinToken("lab", addresses, fingerprint(LAB.issuer.certificate), SECRET)


async def joined(*addresses: str) -> Admission:
    return await join_by_token(token(*addresses), addresses, ME, "me", lambda _: None, agree)


async def refused(*addresses: str) -> str:
    with pytest.raises(DecafError) as caught:
        await joined(*addresses)
    return caught.value.reason


@pytest.mark.parametrize(
    ("says", "between"),
    [(MALLORY, b""), (LAB, b""), (LAB, pem_of((MALLORY.issuer.certificate,))), (LAB, b"nonsense")],
    ids=["his own authority", "ours", "a chain that is none", "damaged"],
)
async def test_who_stands_in_between_never_hears_the_secret(says: Authority, between: bytes) -> None:
    mallory = Between(MALLORY.papers(), says, between)
    async with serving(mallory) as address:
        assert await refused(address) in ("join.other-mesh", "certificate.damaged")
        assert mallory.secrets == []


async def test_a_member_who_answers_with_another_certificate_is_not_believed() -> None:
    other = new_identity()
    for issuer, key in ((LAB, other), (MALLORY, ME)):
        chain = pem_of(issue_member(issuer.issuer, key.key.public_key(), time.time(), 1000.0))
        member = Between(LAB.papers(), LAB, chain=chain)
        async with serving(member) as address:
            assert await refused(address) in ("join.other-key", "certificate.other-mesh")
            assert member.secrets == [SECRET, SECRET], "asked what it trains, and to be let in"
    member = Between(LAB.papers(), LAB, chain=b"-----BEGIN CERTIFICATE-----")
    async with serving(member) as address:
        assert await refused(address) == "certificate.damaged"


async def test_addresses_are_tried_one_after_the_other(tmp_path: Path) -> None:
    async with listener(tmp_path / "a") as enrolment, serving(Between(MALLORY.papers(), MALLORY)) as other:
        read = read_token(await enrolment.invite(60.0, 1))
        places = ("127.0.0.1:1", other, *read.addresses)
        admission = await join_by_token(read, places, ME, "me", lambda _: None, agree)
        assert admission.members == ("127.0.0.1:7433",)
        assert admission.chain[0].public_key() == ME.key.public_key()
        again = await join_by_token(read, read.addresses, ME, "me", lambda _: None, agree)
        assert again.chain[0] != admission.chain[0]
        keep_admission(tmp_path / "b", ME, admission)
        assert is_member(tmp_path / "b" / "identity")


@pytest.mark.slow
async def test_each_layer_has_its_reason() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n")
        await writer.drain()
        writer.close()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    for answer, reason in ((greet, "join.no-tls"), (hang, "join.unreachable")):
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            assert await refused(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") == reason
    assert await refused("127.0.0.1:1") == "join.not-open"
    assert await refused() == "join.unreachable"


@pytest.mark.slow
async def test_a_member_is_asked_in_vain_if_nobody_approves(tmp_path: Path) -> None:
    async with listener(tmp_path) as enrolment:
        await enrolment.wait_for_applicants(60.0)
        (place,) = read_token(await enrolment.invite(60.0, 1)).addresses
        with pytest.raises(DecafError) as caught:
            await join_by_approval(place, recognise, ME, "me", lambda _: None, patience=0.5, agree=agree)
        assert caught.value.reason == "join.not-approved"
        (applicant,) = await enrolment.wait_for_applicants(0.0)
        assert (applicant.node, applicant.name, applicant.source) == (ME.node, "me", "127.0.0.1")
        await enrolment.approve(ME.node, as_inviter=True)
        admission = await join_by_approval(place, recognise, ME, "me", lambda _: None, patience=5.0, agree=agree)
        assert admission.mesh == "lab"


async def test_the_listener_takes_nothing_large_and_nothing_damaged(tmp_path: Path) -> None:
    async with listener(tmp_path) as enrolment:
        (place,) = read_token(await enrolment.invite(60.0, 1)).addresses
        shown = await look(place)
        options = [("grpc.ssl_target_name_override", name_in(shown))]
        credentials = grpc.ssl_channel_credentials(pem_of((shown,)))
        async with grpc.aio.secure_channel(place, credentials, options) as channel:
            stub = enrolment_pb2_grpc.EnrolmentStub(channel)
            for secret, request, code in (
                (bytes(100_000), b"", grpc.StatusCode.RESOURCE_EXHAUSTED),
                (SECRET, b"nonsense", grpc.StatusCode.INVALID_ARGUMENT),
                (SECRET, request_of(ME.key), grpc.StatusCode.PERMISSION_DENIED),
                (b"", request_of(ME.key), grpc.StatusCode.PERMISSION_DENIED),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.Enrol(pb.EnrolRequest(secret=secret, signing_request=request), timeout=3.0)
                assert caught.value.code() is code


async def test_who_does_not_agree_does_not_use_the_invitation_up(tmp_path: Path) -> None:
    async with listener(tmp_path) as enrolment:
        read = read_token(await enrolment.invite(60.0, 1))

        def object_to(mesh: str, parts: dict[str, Any]) -> None:
            raise BadSettings("join.other-model", "Another model.")

        with pytest.raises(BadSettings):
            await join_by_token(read, read.addresses, new_identity(), "me", lambda _: None, object_to)
        assert await join_by_token(read, read.addresses, ME, "me", lambda _: None, agree)


@pytest.mark.parametrize("data", [b"[]", b"{", b"\xff", b"1", b"[" * 100_000])
def test_what_is_trained_is_an_object(data: bytes) -> None:
    with pytest.raises(BadData):
        read_parts(data)
    assert read_parts(b"") == {}


@pytest.mark.slow
async def test_a_call_that_is_begun_and_never_ended_is_in_the_way_no_longer(tmp_path: Path) -> None:
    async with listener(tmp_path) as door:
        (place,) = read_token(await door.invite(60.0, 1)).addresses
        shown = await look(place)
        options = [("grpc.ssl_target_name_override", name_in(shown))]
        credentials = grpc.ssl_channel_credentials(pem_of((shown,)))
        async with grpc.aio.secure_channel(place, credentials, options) as channel:
            begun: Any = [channel.stream_unary("/decaf_node.v1.Enrolment/Enrol")(timeout=60.0) for _ in range(10)]
            for call in begun:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert "not come in time" in str(caught.value.details())
            reply = await enrolment_pb2_grpc.EnrolmentStub(channel).GetMesh(pb.GetMeshRequest(), timeout=5.0)
            assert reply.mesh == "lab"
