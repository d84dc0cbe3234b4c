"""A device joins a mesh: finds it, makes sure that it is the right one, and only then says what lets it in."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from decaf_node.daemon.addresses import split, target
from decaf_node.daemon.certificates import Chain, check_chain, fingerprint, pem_of, read_chain, request_of
from decaf_node.daemon.clock import require_clock
from decaf_node.daemon.durable import disk_errors, make_folder
from decaf_node.daemon.identity import KEY, Identity, keep_identity
from decaf_node.daemon.join_token import JoinToken
from decaf_node.daemon.logs import printable
from decaf_node.daemon.node_id import node_of
from decaf_node.daemon.papers import keep_papers
from decaf_node.daemon.rpc_errors import error_of
from decaf_node.daemon.security import look, name_in
from decaf_node.daemon.seeds import AT_MOST, keep_seeds
from decaf_node.errors import BadData, DecafError, NotAllowed, TryAgain
from decaf_node.v1 import enrolment_pb2 as pb
from decaf_node.v1 import enrolment_pb2_grpc

CALL_SECONDS = 5.0
ASK_AGAIN_SECONDS = 1.0

PARTS_LIMIT_BYTES = 1024 * 1024

Tell = Callable[[str], None]
Recognise = Callable[[bytes], None]  # raises where it is not the mesh that was meant
Agree = Callable[[str, dict[str, Any]], None]  # is told the mesh and what it trains; raises where that does not fit


@dataclass(frozen=True)
class Admission:
    """What a device has been given. members: addresses; at: where it was let in."""

    mesh: str
    chain: Chain
    authority: x509.Certificate
    members: tuple[str, ...]
    at: str


@dataclass(frozen=True)
class Door:
    """An enrolment listener whose certificate is signed by the mesh's authority, and the way to it."""

    stub: enrolment_pb2_grpc.EnrolmentAsyncStub
    mesh: str
    authority: x509.Certificate
    address: str


async def join_by_token(
    token: JoinToken, places: Sequence[str], identity: Identity, name: str, tell: Tell, agree: Agree
) -> Admission:
    """Join with an invitation, at the first of ``places`` (addresses of enrolment listeners) where it can be.

    agree: is asked before the invitation is used; tell: is told line by line how far it is. Raises what is wrong, each
    with its layer: TryAgain ``join.unreachable``, ``join.not-open``, ``join.no-tls``; NotAllowed ``join.other-mesh``
    (somebody else answers: the secret was not said) and what the mesh refuses with; TryAgain ``clock.not-set``.
    """
    require_clock(time.time())
    failed: DecafError = TryAgain("join.unreachable", "The invitation names no address, and none was found by mDNS.")
    for place in places:
        outcome = await _try(place, token, identity, name, tell, agree)
        if isinstance(outcome, Admission):
            return outcome
        failed = outcome
    raise failed


async def _try(
    place: str, token: JoinToken, identity: Identity, name: str, tell: Tell, agree: Agree
) -> Admission | DecafError:
    """Join there, or return why it may work elsewhere. Raises what the mesh has refused with."""
    try:
        async with _door(place, token.authority) as door:
            tell(f"found the mesh {door.mesh} at {place}, and its certificate is that of the invitation")
            await _look(door, identity, name, token.secret, agree)
            return _admission(door, identity, await _enrol(door, identity, name, token.secret))
    except TryAgain as error:
        return error
    except NotAllowed as error:
        if error.reason == "join.other-mesh":
            return error
        raise


async def join_by_approval(
    place: str, recognise: Recognise, identity: Identity, name: str, tell: Tell, patience: float, agree: Agree
) -> Admission:
    """Ask to join at ``place``, and wait until a person there approves. Raises as ``join_by_token`` does.

    recognise: is asked, with the fingerprint of the mesh's certificate, before anything is said; agree: before the
    device is a member. Raises TryAgain ``join.not-approved`` after ``patience`` seconds too.
    """
    require_clock(time.time())
    async with _door(place, None) as door:
        tell(f"found the mesh {door.mesh} at {place}")
        tell(f"its certificate is {fingerprint(door.authority).hex()}: compare it with what `decaf-node approve` shows")
        recognise(fingerprint(door.authority))
        end = time.monotonic() + patience
        while time.monotonic() < end:
            reply = await _enrol(door, identity, name, b"")
            if reply.certificate:
                agree(door.mesh, read_parts(reply.parts))
                return _admission(door, identity, reply)
            await asyncio.sleep(ASK_AGAIN_SECONDS)
    raise TryAgain(
        "join.not-approved", f"Nobody has approved this device within {patience:.0f} s; ask there, and again."
    )


def keep_admission(state: Path, identity: Identity, admission: Admission) -> None:
    """Make the device a member: its key, where it is new, whom to look for, and last its certificate."""
    folder = state / "identity"
    with disk_errors(state):
        make_folder(state)
    if not (folder / KEY).exists():
        keep_identity(folder, identity)
    keep_seeds(state / "members", admission.members)
    keep_papers(folder, admission.chain, (admission.authority,))


@asynccontextmanager
async def _door(place: str, authority: bytes | None) -> AsyncIterator[Door]:
    """Give the way to the listener at ``place``, once its certificate leads to the mesh's."""
    try:
        shown = await look(place)
    except TryAgain as error:
        raise _unreached(error) from None
    credentials = grpc.ssl_channel_credentials(pem_of((shown,)))
    options = [("grpc.ssl_target_name_override", name_in(shown)), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.secure_channel(target(place), credentials, options) as channel:
        stub = enrolment_pb2_grpc.EnrolmentStub(channel)
        try:
            mesh = await stub.GetMesh(pb.GetMeshRequest(), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise _failed(place, error) from None
        found = read_chain(mesh.authority, f"The answer of {place}")[0]
        if authority is not None and fingerprint(found) != authority:
            raise _other_mesh(place)
        between = read_chain(mesh.between, f"The answer of {place}") if mesh.between else ()
        try:
            check_chain((shown, *between), found, time.time())
        except NotAllowed as error:
            raise _other_mesh(place) if error.reason == "certificate.other-mesh" else error from None
        yield Door(stub, printable(mesh.mesh), found, place)


async def _look(door: Door, identity: Identity, name: str, secret: bytes, agree: Agree) -> None:
    """Have what the mesh trains compared, before anything is used up. An older node does not say it."""
    reply = await _enrol(door, identity, name, secret, look_only=True)
    agree(door.mesh, read_parts(reply.parts))


def read_parts(data: bytes) -> dict[str, Any]:
    """Return what a mesh trains; nothing where that is not told. Raises BadData ``join.bad-answer``."""
    try:
        document = json.loads(data.decode()) if 0 < len(data) <= PARTS_LIMIT_BYTES else {}
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BadData("join.bad-answer", "The mesh says of what it trains something that cannot be read; update both.")
    return document


async def _enrol(door: Door, identity: Identity, name: str, secret: bytes, look_only: bool = False) -> pb.EnrolReply:
    signing_request = request_of(identity.key)
    request = pb.EnrolRequest(secret=secret, signing_request=signing_request, name=name, look_only=look_only)
    try:
        return await door.stub.Enrol(request, timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise _failed(door.address, error) from None


def _admission(door: Door, identity: Identity, reply: pb.EnrolReply) -> Admission:
    return read_admission(reply, door.mesh, door.authority, door.address, identity.node)


def read_admission(reply: pb.EnrolReply, mesh: str, authority: x509.Certificate, at: str, node: str) -> Admission:
    """Return what ``node`` was given. Raises BadData ``certificate.damaged``, NotAllowed ``join.other-key``."""
    chain = read_chain(reply.certificate, f"The answer of {at}")
    check_chain(chain, authority, time.time())
    if node_of(chain[0].public_key()) != node:
        raise NotAllowed("join.other-key", f"The certificate that {at} has given is for another key.")
    members = tuple(address for address in reply.members[:AT_MOST] if split(address) is not None)
    return Admission(mesh, chain, authority, members, at)


def _other_mesh(place: str) -> NotAllowed:
    return NotAllowed(
        "join.other-mesh",
        f"Another mesh than the expected one answers at {place}, or somebody stands in between; the secret was not "
        "said. Ask for a new invitation, over a way that you trust.",
    )


def _unreached(error: TryAgain) -> TryAgain:
    """Say which layer does not work, and what to do."""
    match error.reason:
        case "peer.no-tls":
            return TryAgain(
                "join.no-tls",
                f"{error.message}; something else listens there: check the address and listen.enrolment_port.",
            )
        case "peer.refused":
            return TryAgain(
                "join.not-open",
                f"{error.message}: it is there, but expects nobody. Is its daemon running, and is the invitation still "
                "valid? Run `decaf-node invite` there again.",
            )
        case _:
            return TryAgain(
                "join.unreachable",
                f"{error.message}; check that both are in one network and that no firewall blocks this port.",
            )


def _failed(place: str, error: grpc.aio.AioRpcError) -> DecafError:
    return error_of(error) or TryAgain(
        "join.broken-off", f"{place} broke off ({printable(error.details() or error.code().name)}); try again."
    )
