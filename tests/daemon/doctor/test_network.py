"""What the doctor says of multicast: heard for real on loopback, judged by table."""

from __future__ import annotations

import asyncio
import socket

from decaf_node.daemon.doctor.network import PACKETS_AT_MOST, Probe, _listen, judge_multicast, probe
from decaf_node.daemon.interfaces import Address
from decaf_node.daemon.lan import Heard

ETH0 = Address("eth0", 2, "10.0.0.1", 24)
ME, OTHER = "A" * 52, "B" * 52
OWN, DEAF = Probe(ETH0, own=True), Probe(ETH0)
NEAR, FAR = {"10.0.0.2:7433": "near"}, {"192.0.2.2:7433": "far"}


async def test_what_is_sent_is_heard() -> None:
    [found] = await probe([Address("lo", 1, "127.0.0.1", 8)], 0.3)
    assert found.error is None
    assert found.own
    assert not found.others


async def test_an_address_that_is_not_here() -> None:
    [found] = await probe([Address("eth9", 99, "192.0.2.1", 24)], 0.1)
    assert found.error is not None


async def test_what_is_heard_has_a_limit() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
    ):
        ear.bind(("127.0.0.1", 0))
        ear.setblocking(False)
        hearing = asyncio.create_task(_listen(ear, 0.3))
        for _ in range(2 * PACKETS_AT_MOST):
            mouth.sendto(b"x", ear.getsockname())
            await asyncio.sleep(0)
        assert len(await hearing) == PACKETS_AT_MOST


def judged(
    probes: list[Probe], heard: tuple[Heard, ...] = (), reached: dict[str, str] | None = None, known: int = 0
) -> list[tuple[str, str]]:
    findings = judge_multicast(probes, heard, "lab", ME, reached or {}, known)
    return [(finding.mark, finding.reason) for finding in findings]


def test_judgements() -> None:
    member, stranger, self_ = (Heard(OTHER, "lab", ()), Heard(OTHER, "cafe", ()), Heard(ME, "lab", ()))
    assert judged([OWN], (member, self_)) == [("well", "")]
    assert judged([OWN]) == [("failure", "multicast.nobody-heard")]
    assert judged([OWN], (self_,)) == [("failure", "multicast.nobody-heard")]
    assert judged([Probe(ETH0, own=True, others=frozenset({"10.0.0.9"}))]) == [("failure", "multicast.nobody-heard")]
    assert judged([OWN], (stranger,)) == [("failure", "mesh.other-name")]
    assert judged([OWN], (), NEAR, 1) == [("warning", "multicast.filtered")]
    assert judged([OWN], (), FAR, 1) == [("well", "")]
    assert judged([OWN], (), {}, 1) == [("well", "")], "what is wrong with the members is said of them"
    assert judged([DEAF]) == [("failure", "multicast.not-heard")]
    assert judged([DEAF, OWN], (member,)) == [("failure", "multicast.not-heard"), ("well", "")]
    assert judged([Probe(ETH0, error=OSError(101, "Network is unreachable"))]) == [("failure", "multicast.not-sent")]
    assert judged([Probe(ETH0, error=OSError(98, "Address already in use"))]) == [("failure", "discovery.failed")]
