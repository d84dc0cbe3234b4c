"""What is kept account of is what a look at every member gives; and a small mesh is as it was before rumours."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from decaf_node.mesh import events as ev
from decaf_node.mesh.membership import Membership
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.rumours import News as Told
from decaf_node.mesh.rumours import Rumour, Standing
from decaf_node.mesh.topology import graph_of
from tests.mesh.script import offer

PEERS = [f"p{i:02}" for i in range(24)]
SCHEMAS = ["", "s" * 64, "t" * 64]

peers = st.sampled_from([*PEERS[:3], *PEERS[:3], *PEERS[:3], *PEERS[-3:]])  # few, so that much happens to each
times = st.sampled_from([0.0, 0.0, 0.5, 5.0, 14.9, 60.0])
rumours = st.builds(
    Rumour,
    st.sampled_from([*PEERS[:3], *PEERS, "me"]),
    st.sampled_from(Standing),
    st.integers(0, 3),
    st.just("name"),
    st.sampled_from(SCHEMAS),
    st.sampled_from([(), ("a:1",)]),
)
news = st.builds(
    Told,
    st.integers(0, 3),
    st.just(()),
    st.lists(rumours, max_size=4).map(tuple),
    st.lists(rumours, max_size=9).map(tuple),
)
calls = st.one_of(
    st.builds(ev.PeerFound, peers, st.just(("f:1",))),
    st.builds(ev.PeerAnswered, peers, st.just("name"), st.sampled_from(SCHEMAS), st.integers(0, 9), news),
    st.builds(ev.HelloReceived, peers, st.just("name"), st.sampled_from(SCHEMAS), st.just(1), st.just(("h:1",)), news),
    st.builds(ev.PeerSilent, peers, st.just("no")),
    st.builds(ev.PeerLeft, peers),
    st.builds(ev.OfferReceived, peers, st.just(offer("x1")), st.just(True)),
    st.builds(ev.EdgeRefused, peers, st.just("mesh.done"), st.just("Done.")),
    st.builds(ev.SnapshotRefused, peers, st.just("x"), st.just("torn")),
    st.just(ev.Tick()),
)


def play(members: Membership, event: ev.Event, now: float) -> None:
    """Do what the node does with the event."""
    match event:
        case ev.PeerFound():
            members.found(event, now)
        case ev.PeerAnswered() | ev.HelloReceived():
            members.met(event, now)
        case ev.PeerSilent():
            members.silent(event, now)
        case ev.PeerLeft(peer):
            members.said_goodbye(peer, now)
        case ev.OfferReceived(peer, offer):
            members.offered(peer, offer, now)
        case ev.EdgeRefused(peer, _, message):
            members.declined(peer, message, now)
        case ev.SnapshotRefused(peer, _, problem):
            members.refused(peer, problem, now)


def check(members: Membership, busy: set[str], policy: Policy, now: float) -> None:
    """Compare with a look at every member."""
    everyone = list(members)
    here = {member.peer for member in everyone if members.is_here(member, now)}
    willing = {member.peer for member in everyone if member.peer in here and now >= member.declined_until}
    presence, probes = members._presence, members._probes
    presence.pass_time(now)
    assert (presence.here, presence.willing) == (here, willing)
    for schema in SCHEMAS:
        eligible = [
            member.peer
            for member in everyone
            if (member.peer in here or member.peer in busy)
            and now >= member.declined_until
            and (not schema or member.schema in ("", schema))
        ]
        assert members.graph(schema, now, busy) is graph_of(policy.topology, [*eligible, "me"])
    times = [probes._times.get(member.peer) for member in everyone]
    assert all(time < float("inf") for time in times), "everyone is probed at some time, for ever"
    turn = [] if probes._turn is None else [probes._turn]
    assert members.deadline() == min([*times, *turn], default=None)
    assert len(everyone) <= policy.peer_limit
    assert probes.near <= {member.peer for member in everyone}
    assert all(
        member.quiet_since == float("inf") for member in everyone if member.heard and member.peer not in probes.near
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(times, calls), min_size=20, max_size=60),
    st.sampled_from([0, 14, 20]),
    st.sets(peers, max_size=3),
    st.sampled_from(["ring", "full"]),
    st.sampled_from([4, 20, 1024]),
)
def test_the_accounts_are_what_a_scan_gives(
    story: list[tuple[float, ev.Event]], crowd: int, busy: set[str], topology: str, limit: int
) -> None:
    policy = Policy(topology=topology, peer_limit=limit)
    members = Membership("me", policy, Random(1))
    members.watch(busy)
    now = 0.0
    for peer in PEERS[:crowd]:
        members.met(ev.PeerAnswered(peer, "name", "s" * 64, 0), now)
    for wait, event in story:
        now += wait
        play(members, event, now)
        members.due("s" * 64, now)
        deadline = members.deadline()
        assert deadline is None or deadline > now
        check(members, busy, policy, now)


def test_probes_at_one_time_are_bounded_after_a_long_sleep() -> None:
    members = Membership("me", Policy(topology="ring"), Random(1))
    everyone = [f"n{i:04}" for i in range(1000)]
    for peer in everyone:
        members.met(ev.PeerAnswered(peer, "", "", 0), 0.0)
    members.due("", 5.0)
    assert len(members.due("", 1e6)) <= 8 + 2


def test_rumours_make_no_more_members_than_allowed_and_take_nobodys_place() -> None:
    members = Membership("me", Policy(peer_limit=3), Random(1))
    for peer in ("a", "b"):
        members.met(ev.PeerAnswered(peer, "", "", 0), 0.0)
    some = tuple(Rumour(peer, Standing.HERE) for peer in ("me", "c", "d", "e"))
    members.met(ev.PeerAnswered("a", "", "", 0, Told(rumours=some)), 1.0)
    assert [member.peer for member in members] == ["a", "b", "c"]
    members.met(ev.HelloReceived("z", "", "", 0), 2.0)  # it speaks itself, and ``c`` never has
    assert [member.peer for member in members] == ["a", "b", "z"]
    assert members.heard("y", 2.0) is None


def test_who_is_told_to_be_lost_and_was_heard_of_late_is_told_so_and_stays() -> None:
    members = Membership("me", Policy(), Random(1))
    for peer in ("a", "b"):
        members.met(ev.PeerAnswered(peer, "", "", 0), 0.0)
    members.met(ev.PeerAnswered("a", "", "", 0, Told(rumours=(Rumour("b", Standing.LOST),))), 1.0)
    [(peer, said)] = members.due("", 1.0)
    assert (peer, said.rumours[0]) == ("b", Rumour("b", Standing.LOST))
    member = members.get("b")
    assert member is not None
    assert members.state(member, 1.0) == "late"
    members.met(ev.PeerAnswered("b", "", "", 0, Told(1)), 1.1)
    assert members.state(member, 100.0) == "gone"  # by its quiet alone
    assert members.state(member, 1.1) == "alive"
    assert Rumour("b", Standing.HERE, 1) in members.news("c").rumours


def test_who_hears_of_its_own_death_contradicts() -> None:
    members = Membership("me", Policy(), Random(1))
    members.met(ev.PeerAnswered("a", "", "", 0, Told(rumours=(Rumour("me", Standing.LOST, 4),))), 1.0)
    assert members.get("me") is None
    assert members.news().incarnation == 5
    assert [peer for peer, _ in members.due("", 1.0)] == ["a"]  # and says so


def test_who_cannot_reach_a_member_that_others_reach_accuses_it_once() -> None:
    members = Membership("me", Policy(), Random(1))
    members.met(ev.PeerAnswered("b", "", "", 0), 0.0)
    for incarnation in range(1, 4):
        for _ in range(3):
            members.silent(ev.PeerSilent("b", "no route"), 1.0)
        lost = Rumour("b", Standing.LOST, 0)
        assert (lost in members.news().rumours) == (incarnation == 1)
        here = Rumour("b", Standing.HERE, incarnation)
        members.met(ev.PeerAnswered("a", "", "", 0, Told(rumours=(here,))), 1.0)
        assert here in members.news().rumours
