"""Alive, late, gone, and who is probed when."""

from __future__ import annotations

import itertools
from dataclasses import replace

from decaf_node.mesh import events as ev
from decaf_node.mesh.policy import Policy
from tests.mesh.script import SCHEMA, Script, offer

EVERY = Policy().probe_every


def state(s: Script, peer: str = "c") -> str:
    return {view.peer: view.state for view in s.node.view(s.now).peers}[peer]


def answer(s: Script, peer: str = "c") -> None:
    s.play(ev.PeerAnswered(peer, peer.upper(), SCHEMA, 3))


def test_a_peer_that_is_found_is_probed_and_is_gone_until_it_answers() -> None:
    s = Script()
    assert s.probed(ev.PeerFound("c", ("10.0.0.3:7433",))) == ["c"]
    assert state(s) == "gone"
    answer(s)
    assert state(s) == "alive"
    [view] = s.node.view(s.now).peers
    assert (view.name, view.round, view.addresses, view.heard) == ("C", 3, ("10.0.0.3:7433",), 0.0)


def test_we_are_no_peer_of_ourselves() -> None:
    s = Script(me="b")
    assert s.probed(ev.PeerFound("b", ("10.0.0.2:7433",))) == []
    assert s.node.view(0.0).peers == ()


def test_quiet_makes_late_then_gone() -> None:
    s = Script()
    answer(s)
    states = []
    for _ in range(15):
        s.now += EVERY
        states.append(state(s))
    assert states == ["alive"] * 3 + ["late"] * 9 + ["gone"] * 3


def test_failed_probes_make_late_then_gone_and_an_answer_brings_it_back() -> None:
    s = Script()
    answer(s)
    states = []
    for _ in range(3):
        s.play(ev.PeerSilent("c", "connection refused"))
        states.append(state(s))
    assert states == ["late", "late", "gone"]
    assert s.node.view(s.now).peers[0].problem == "connection refused"
    answer(s)
    assert state(s) == "alive"


def test_a_peer_heard_of_late_is_not_probed_and_one_not_heard_is_probed_at_intervals() -> None:
    s = Script()
    answer(s)
    assert s.probed(ev.Tick(), after=EVERY / 2) == []
    s.play(ev.ReceiptReceived("c", ev.Receipt("c1", "b1", 0.5)))
    assert s.probed(ev.Tick(), after=EVERY / 2) == []
    assert s.probed(ev.Tick(), after=EVERY / 2) == ["c"]
    assert s.probed(ev.Tick()) == []
    assert s.probed(ev.Tick(), after=EVERY) == ["c"]


def test_a_gone_peer_is_probed_for_ever_with_back_off() -> None:
    s = Script()
    answer(s)
    times: list[float] = []
    while len(times) < 60:
        deadline = s.node.deadline()
        assert deadline is not None
        s.now = deadline
        if s.probed(ev.Tick()):
            times.append(s.now)
            s.play(ev.PeerSilent("c", "no route"))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    longest = Policy().redial_backoff
    assert all(longest / 2 <= gap <= longest for gap in gaps[-40:])
    assert len(set(gaps[-40:])) > 30  # spread out, so that many nodes do not probe in step


def test_discovery_has_a_gone_peer_probed_at_once() -> None:
    s = Script()
    answer(s)
    for _ in range(8):
        s.play(ev.PeerSilent("c", "no route"), after=EVERY)
    assert s.probed(ev.PeerFound("c", ("10.0.0.9:7433",)), after=1.0) == ["c"]
    assert s.node.view(s.now).peers[0].addresses == ("10.0.0.9:7433",)


def test_a_goodbye_makes_it_gone_at_once_and_it_is_looked_for_again() -> None:
    s = Script()
    answer(s)
    s.play(ev.PeerLeft("c"))
    assert state(s) == "gone"
    assert s.node.view(s.now).degree == 0
    assert s.probed(ev.Tick(), after=Policy().redial_backoff) == ["c"]


def test_a_failed_probe_says_less_than_a_stream_that_is_up() -> None:
    s = Script().start()
    s.play(ev.OfferReceived("c", offer("c1"), incoming=True))
    for _ in range(5):
        s.play(ev.PeerSilent("c", "no address of it is known"))
    assert state(s) == "alive"


def test_the_number_of_members_is_bounded_and_the_longest_gone_makes_room() -> None:
    s = Script(replace(Policy(), peer_limit=3))
    for peer in ("c", "d", "e"):
        answer(s, peer)
        s.now += 1.0
    s.play(ev.PeerFound("x", ("x:1",)))
    [refusal] = s.play(ev.OfferReceived("x", offer("x1"), incoming=True))
    assert isinstance(refusal, ev.RefuseEdge)
    assert refusal.reason == "mesh.full"
    assert [view.peer for view in s.node.view(s.now).peers] == ["c", "d", "e"]
    s.play(ev.PeerLeft("d"), ev.PeerLeft("e"), ev.PeerFound("x", ("x:1",)))
    assert [view.peer for view in s.node.view(s.now).peers] == ["c", "e", "x"]


def test_a_back_off_of_nothing_is_still_no_storm() -> None:
    s = Script(replace(Policy(), redial_backoff=0.0))
    s.play(ev.PeerFound("c", ("c:1",)))
    deadline = s.node.deadline()
    assert deadline is not None
    assert deadline > s.now
