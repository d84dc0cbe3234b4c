"""Incarnations in a circle: whatever is said of a member, it can contradict."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from decaf_node.mesh.events import HelloReceived
from decaf_node.mesh.gossip import Gossip
from decaf_node.mesh.membership import Membership
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.rumours import INCARNATIONS, News, Rumour, Standing, is_later

NUMBERS = st.integers(0, INCARNATIONS - 1)
HALF = INCARNATIONS // 2


@given(NUMBERS, st.integers(1, HALF - 1))
def test_what_is_up_to_half_of_the_circle_ahead_is_later(start: int, ahead: int) -> None:
    later = (start + ahead) % INCARNATIONS
    assert is_later(later, start)
    assert not is_later(start, later)


@given(NUMBERS)
def test_none_is_later_than_itself_or_than_its_opposite(number: int) -> None:
    opposite = (number + HALF) % INCARNATIONS
    assert not is_later(number, number)
    assert not is_later(number, opposite)
    assert not is_later(opposite, number)


@given(st.lists(st.tuples(NUMBERS, st.sampled_from([Standing.LOST, Standing.LEFT])), min_size=1, max_size=8))
def test_every_lie_is_beaten_by_its_contradiction(lies: list[tuple[int, Standing]]) -> None:
    """Whatever was believed before, also the highest number that there is."""
    me = Gossip("me")
    for number, standing in lies:
        lie = Rumour("me", standing, number)
        before = Rumour("me", Standing.HERE, me.incarnation)
        if me.contradict(lie):
            assert Rumour("me", Standing.HERE, me.incarnation).beats(lie)
        else:
            assert before.beats(lie)


def test_a_member_that_is_said_to_be_gone_with_the_highest_number_comes_back() -> None:
    members = Membership("a", Policy(), Random(1))
    liar, victim = "b", "c"
    hello = HelloReceived(victim, "c", "", 1, ("127.0.0.1:1",), News())
    members.met(hello, 0.0)
    highest = INCARNATIONS // 2 - 1
    lie = News(0, b"", (Rumour(victim, Standing.LOST, highest),))
    members.met(HelloReceived(liar, "b", "", 1, ("127.0.0.1:2",), lie), 1.0)
    told = members.news(victim).rumours[0]
    assert (told.peer, told.standing, told.incarnation) == (victim, Standing.LOST, highest)
    answering = Gossip(victim)
    assert answering.contradict(told)
    members.met(HelloReceived(victim, "c", "", 1, ("127.0.0.1:1",), News(answering.incarnation)), 2.0)
    member = members.get(victim)
    assert member is not None
    assert members.state(member, 3.0) == "alive"
    here = [rumour for rumour in members.news().rumours if rumour.peer == victim]
    assert {rumour.standing for rumour in here} <= {Standing.HERE}
