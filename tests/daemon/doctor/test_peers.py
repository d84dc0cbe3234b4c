"""Members are visited layer by layer, over real sockets; whoever only looks leaves no trace."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
from pathlib import Path

from decaf_node.daemon.channels import Channels
from decaf_node.daemon.dial import look_at
from decaf_node.daemon.doctor.company import Own, judge_visits
from decaf_node.daemon.doctor.identity import Shown
from decaf_node.daemon.doctor.peers import Known, Visit, Visits, leads_here, merged
from decaf_node.daemon.papers import Papers
from decaf_node.daemon.security import MutualTls, Plaintext
from decaf_node.daemon.wire import Introduction
from decaf_node.errors import NotAllowed
from decaf_node.mesh.events import HelloReceived
from tests.daemon.ends import HIGH, LOW, SCHEMA, end
from tests.daemon.test_tls import member
from tests.daemon.trusted import Authority

LAB = Authority("lab")
DAY = 86400.0


def me(node: str, mesh: str = "lab") -> Introduction:
    return Introduction(node, "doctor", mesh, "", 0, "")


def shown(papers: Papers) -> Shown:
    return Shown(papers.node, MutualTls(papers, None), papers.authorities)


async def visit(papers: Papers, *addresses: str, node: str = "", mesh: str = "lab") -> Visit:
    [found] = await Visits(me(papers.node, mesh), shown(papers)).all([Known(node, "", addresses)])
    return found


async def test_who_only_looks_is_not_heard(tmp_path: Path) -> None:
    async with end(HIGH, tmp_path) as high, end(LOW, tmp_path) as low:
        high.me.base = "b" * 64
        channels = Channels(Plaintext())
        for _ in range(2):  # two instances that alternate would be clones
            seen = await look_at(channels, high.me.address, dataclasses.replace(me(LOW), instance="1" * 16))
            assert high.events == []
            low.dialler.learn(HIGH, (high.me.address,))
            assert not (await low.dialler.hello(HIGH)).clone
            high.events.clear()
        await channels.close()
        assert (seen.who.node, seen.who.schema, seen.who.base) == (HIGH, SCHEMA, "b" * 64)
        assert abs(seen.time - time.time()) < 60
        await low.dialler.hello(HIGH)
        await high.seen(HelloReceived)


async def test_a_member_that_is_well(tmp_path: Path) -> None:
    ours, theirs = LAB.papers(), LAB.papers()
    async with member(tmp_path, theirs) as there:
        found = await visit(ours, there.me.address, node=theirs.node)
        assert (found.error, found.reached) == (None, True)
        assert found.seen is not None
        assert found.seen.who.round == 1
        assert found.ahead is not None
        assert abs(found.ahead) < 60
        [finding] = judge_visits([found], Own(SCHEMA, "", 1), {})
        assert finding.mark == "well"
        assert there.events == []


async def test_the_first_address_that_is_right_counts(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with member(tmp_path, LAB.papers()) as there:
            found = await visit(LAB.papers(), f"127.0.0.1:{closed.getsockname()[1]}", there.me.address)
    assert (found.error, found.address) == (None, there.me.address)


async def reason_at(papers: Papers, address: str, node: str = "", mesh: str = "lab") -> str:
    error = (await visit(papers, address, node=node, mesh=mesh)).error
    assert error is not None
    return error.reason


async def test_who_is_not_who_it_should_be(tmp_path: Path) -> None:
    ours, theirs = LAB.papers(), LAB.papers()
    async with member(tmp_path, theirs) as there:
        assert await reason_at(ours, there.me.address, node="N" * 52) == "peer.other-node"
        assert await reason_at(theirs, there.me.address) == "identity.cloned"
        assert await reason_at(Authority("elsewhere").papers(), there.me.address) == "peer.other-mesh"
        assert await reason_at(Authority("lab").papers(), there.me.address) == "peer.other-mesh"
        assert await reason_at(ours, there.me.address, mesh="cafe") == "peer.refuses"


async def test_this_node_under_another_name_is_no_clone(tmp_path: Path) -> None:
    papers = LAB.papers()
    async with member(tmp_path, papers) as here:
        at = (Known("", "", (here.me.address,)),)
        assert await Visits(me(papers.node), shown(papers), here.me.instance).all(at) == []
        [found] = await Visits(me(papers.node), shown(papers), "1" * 16).all(at)
        assert found.error is not None
        assert found.error.reason == "identity.cloned"
        moved = [Known("N" * 52, "", (here.me.address,))]
        [found] = await Visits(me(papers.node), shown(papers), here.me.instance).all(moved)
        assert found.error is not None
        assert found.error.reason == "peer.other-node"


async def test_names_of_this_machine() -> None:
    for name in ("localhost", "127.0.0.1", "[::1]", "127.0.1.1"):
        assert await leads_here(f"{name}:7433", 7433)
        assert not await leads_here(f"{name}:7434", 7433)
    for other in ("192.0.2.1:7433", "[fd00::77]:7433", f"{'a' * 70}.local:7433", "nowhere"):
        assert not await leads_here(other, 7433)


async def test_a_certificate_that_has_expired(tmp_path: Path) -> None:
    async with member(tmp_path, LAB.papers(DAY, time.time() - 9 * DAY)) as there:
        found = await visit(LAB.papers(), there.me.address)
    assert found.error is not None
    assert (found.error.reason, found.out_of_date) == ("peer.certificate-expired", "expired")


async def test_an_expired_certificate_of_a_stranger_says_nothing_of_our_clock(tmp_path: Path) -> None:
    async with member(tmp_path, Authority("lab").papers(DAY, time.time() - 9 * DAY)) as there:
        found = await visit(LAB.papers(), there.me.address)
    assert found.error is not None
    assert (found.error.reason, found.out_of_date) == ("peer.other-mesh", "")


async def test_without_papers_of_our_own_theirs_are_looked_at(tmp_path: Path) -> None:
    async with member(tmp_path, LAB.papers()) as there:
        visits = Visits(me("A" * 52), Shown("A" * 52, None, (LAB.issuer.certificate,)))
        [found] = await visits.all([Known("", "", (there.me.address,))])
    assert (found.error, found.seen, found.reached) == (None, None, True)
    assert [finding.mark for finding in judge_visits([found], Own(), {})] == ["unseen"]


async def test_nothing_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert await reason_at(LAB.papers(), f"127.0.0.1:{closed.getsockname()[1]}") == "peer.refused"
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        assert await reason_at(LAB.papers(), f"127.0.0.1:{server.sockets[0].getsockname()[1]}") == "peer.no-tls"


async def test_trouble_is_a_warning_where_another_is_well(tmp_path: Path) -> None:
    ours, theirs = LAB.papers(), LAB.papers()
    silent = Visit(Known("C" * 52, "c", ("10.0.0.3:1",)), "10.0.0.3:1", NotAllowed("peer.refused", "No."))
    async with member(tmp_path, theirs) as there:
        there.me.base = "b" * 64
        well = await visit(ours, there.me.address)
    assert marks([silent], Own()) == ["failure peer.refused"]
    assert marks([silent, well], Own()) == ["warning peer.refused", "well "]
    assert marks([silent, well], Own("c" * 64, "b" * 64)) == ["warning peer.refused", "failure peer.other-schema"]
    assert marks([silent, well], Own("c" * 64, "d" * 64)) == ["warning peer.refused", "failure peer.other-model"]
    late = dataclasses.replace(well, ahead=500.0)
    assert marks([well, well, late], Own()) == ["well ", "well ", "warning peer.clock-differs", "well "]
    assert [finding.reason for finding in judge_visits([well], Own(), {theirs.node: "It is backing off."})] == [
        "peer.trouble",
        "",
    ]


def marks(visits: list[Visit], own: Own) -> list[str]:
    return [f"{finding.mark} {finding.reason}" for finding in judge_visits(visits, own, {})]


def test_each_is_visited_once() -> None:
    told = [
        Known("A", "", ("h:1", "h:2")),
        Known("B", "b", ("i:1",)),
        Known("A", "a", ("h:2", "h:3")),
        Known("ME", "", ()),
    ]
    assert merged(told, ("h:3", "j:1", "j:1"), "ME") == [
        Known("A", "a", ("h:1", "h:2", "h:3")),
        Known("B", "b", ("i:1",)),
        Known("", "", ("j:1",)),
    ]
    assert Known("", "", ("j:1",)).title == "j:1"


async def test_no_way_there() -> None:
    assert await reason_at(LAB.papers(), f"{'a' * 70}.local:1") == "peer.name-unknown"
    error = (await visit(LAB.papers(), node="N" * 52)).error
    assert error is not None
    assert error.reason == "peer.no-address"
