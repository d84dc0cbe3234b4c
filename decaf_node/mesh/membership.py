"""The members that a node knows of: what is heard from them, and what is told of them.

``presence.py`` says who is here, ``probes.py`` whom to probe when, ``gossip.py`` what to tell. Whatever comes from a
peer counts as hearing it, and beats what others say of it: who is said to be lost and was heard of late is told so,
and contradicts. A peer that was never heard and of which nobody has told is gone; so is one that says goodbye.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from random import Random

from decaf_node.mesh.events import HelloReceived, Offer, PeerAnswered, PeerFound, PeerSilent
from decaf_node.mesh.gossip import Gossip
from decaf_node.mesh.member import FOR_EVER, NEVER, Member
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.presence import GONE_SILENCES, Presence
from decaf_node.mesh.probes import SOONEST, Probes
from decaf_node.mesh.rumours import (
    ADDRESSES_AT_MOST,
    KNOWN_AT_MOST,
    NEWS_AT_MOST,
    NO_NEWS,
    News,
    Rumour,
    Standing,
    is_later,
)
from decaf_node.mesh.topology import Graph, graph, graph_of

DOUBTS = 3.0  # probe intervals, and one more for each fourfold of members: time for a lost one to contradict


class Membership:
    """The members that ``me`` knows of, itself not among them; at most ``policy.peer_limit``."""

    def __init__(self, me: str, policy: Policy, random: Random) -> None:
        self._me = me
        self._policy = policy
        self._members: dict[str, Member] = {}
        self._presence = Presence(self._members, policy.probe_every)
        self._probes = Probes(me, policy, self._presence, random)
        self._gossip = Gossip(me)
        self._graph = graph_of(policy.topology, (me,))
        self._graph_for: object = None  # what ``_graph`` was worked out for
        self._near: tuple[str, ...] = ()  # our neighbours in it
        self._full_until = NEVER  # no use in looking for a member that makes room

    def __iter__(self) -> Iterator[Member]:
        return iter([self._members[peer] for peer in sorted(self._members)])

    def __len__(self) -> int:
        return len(self._members)

    def pass_time(self, now: float) -> None:
        """Let happen what happens by itself up to now: some are gone, or willing again. The rest follows it."""
        self._presence.pass_time(now)

    @property
    def version(self) -> int:
        """Grows whenever somebody comes, goes, or becomes another kind of neighbour."""
        return self._presence.version

    def get(self, peer: str) -> Member | None:
        """Return the member, if it is one."""
        return self._members.get(peer)

    def state(self, member: Member, now: float) -> str:
        """Return ``alive``, ``late`` or ``gone``."""
        return self._presence.state(member, now)

    def is_here(self, member: Member, now: float) -> bool:
        """Alive or late."""
        return self._presence.is_here(member, now)

    def has_left(self, peer: str) -> bool:
        """It has said goodbye, to us or to others."""
        told = self._gossip.get(peer)
        return told is not None and told.standing is Standing.LEFT

    def watch(self, busy: Collection[str]) -> None:
        """Look after those with a stream too: ``busy``, which the edges keep up to date."""
        self._probes.busy = busy

    def graph(self, schema: str, now: float, also: Collection[str] = ()) -> Graph:
        """Return the graph of ourselves and the members that are here, of our schema and willing.

        ``also`` are peers that count as here because a stream of theirs is up. A schema not known yet, or ours,
        passes: the trainer is loading, and a mesh is founded together with it. Worked out anew only where something
        has changed.
        """
        willing, members = self._presence.willing, self._members
        more = [peer for peer in also if peer in members and peer not in willing]
        more = [peer for peer in sorted(more) if now >= members[peer].declined_until]
        asked = (schema, more, self._presence.version)
        if asked != self._graph_for:
            eligible = [peer for peer in more if not schema or members[peer].schema in ("", schema)]
            everyone = sorted((*self._presence.willing_to_train(schema), *eligible, self._me))  # nearly sorted: fast
            self._graph, self._graph_for = graph(self._policy.topology, tuple(everyone)), asked
            self._near = self._graph.candidates(self._me)
        return self._graph

    def remember(self, peer: str) -> None:
        """In an earlier life we had an edge with the peer."""
        self._add(peer, NEVER)

    def used(self, peer: str, digest: str) -> None:
        """An edge with this snapshot of the peer's counts."""
        if (member := self._members.get(peer)) is not None:
            member.use(digest)

    # --- what happens -----------------------------------------------------------------------------------------

    def found(self, event: PeerFound, now: float) -> None:
        """Discovery knows it: probe it at once if it is not here."""
        if (member := self._add(event.peer, now)) is not None:
            self._note(member, member.name, member.schema, event.addresses)
            if not self.is_here(member, now):
                self._probes.at(member, max(now, member.probed + SOONEST))

    def met(self, event: PeerAnswered | HelloReceived, now: float) -> None:
        """A probe came back, or the peer has said hello, with news."""
        if (member := self.heard(event.peer, now)) is None:
            return
        addresses = event.addresses if isinstance(event, HelloReceived) and event.addresses else member.addresses
        member.round = max(member.round, event.round)
        member.incarnation = event.news.incarnation
        self._note(member, event.name, event.schema, addresses)
        told = self._gossip.get(event.peer)
        if told is None or is_later(event.news.incarnation, told.incarnation):
            self._gossip.learn(self._rumour(member, event.news.incarnation))
        self._take(event.news, member, now)

    def heard(self, peer: str, now: float) -> Member | None:
        """Something came from the peer; it becomes a member. None if there is no room for it."""
        if (member := self._add(peer, now)) is not None:
            if not self.is_here(member, now):
                member.declined_until = NEVER
            member.heard, member.silences, member.gone_at, member.accused = now, 0, FOR_EVER, False
            member.quiet_since = now if peer in self._probes.near else FOR_EVER
            if self._gossip.get(peer) is None:
                self._gossip.learn(self._rumour(member, 0))
            self._presence.touch(member, now)
            self._probes.again(member, now)
        return member

    def offered(self, peer: str, offer: Offer, now: float) -> bool:
        """The peer's offer came; say whether there is room for it."""
        if (member := self.heard(peer, now)) is None:
            return False
        member.round, member.newcomer = max(member.round, offer.round), offer.mixes == 0
        member.declined_until = NEVER
        self._note(member, member.name, offer.schema, member.addresses)
        self._presence.touch(member, now)
        return True

    def silent(self, event: PeerSilent, now: float) -> None:
        """A probe or a dialling did not get through. Who was silent too often is told to be lost, once."""
        if (member := self._members.get(event.peer)) is None:
            return
        member.silences += 1
        member.problem = event.problem
        self._presence.touch(member, now)
        if self.is_here(member, now):
            self._probes.by(member, now + self._probes.interval)
        elif member.silences >= GONE_SILENCES and not member.accused:
            member.accused = True
            self._spread(member, Standing.LOST)

    def said_goodbye(self, peer: str, now: float) -> None:
        """It is gone at once; it is probed again with back-off."""
        if (member := self._members.get(peer)) is not None:
            member.gone_at = now
            self._presence.touch(member, now)
            self._probes.again(member, now)
            self._spread(member, Standing.LEFT)

    def declined(self, peer: str, problem: str, now: float) -> None:
        """It wants no edges for now."""
        if (member := self._members.get(peer)) is not None:
            member.problem = problem
            member.declined_until = now + self._policy.redial_backoff
            self._presence.touch(member, now)

    def refused(self, peer: str, problem: str, now: float) -> None:
        """A snapshot was no good: no edge for a while, each time longer."""
        if (member := self._members.get(peer)) is not None:
            member.problem = problem
            member.refused_until = now + self._probes.backoff(member.refusals)
            member.refusals += 1

    def mixed(self, peer: str, weight: float) -> None:
        """An edge with the peer is mixed."""
        if (member := self._members.get(peer)) is not None:
            member.weight = weight
            member.mixes += 1

    # --- probes and news --------------------------------------------------------------------------------------

    def due(self, schema: str, now: float) -> list[tuple[str, News]]:
        """Return the peers to probe now, and what to tell them. schema: ours, for our neighbours."""
        self._gossip.train(schema)
        if self._probes.is_turn(now):
            self.graph(schema, now)
            for member in self._probes.look_around(self._near, self._members, now):
                self._change_watch(member, now)
        return [(peer, self._gossip.tell(self._of_itself(peer))) for peer in self._probes.due(self._members, now)]

    def deadline(self) -> float | None:
        """When ``due`` has something next."""
        return self._probes.deadline()

    def news(self, peer: str = "", theirs: News = NO_NEWS) -> News:
        """Return what to answer to the hello of a peer that came with ``theirs``. Changes nothing."""
        return self._gossip.answer(self._of_itself(peer), theirs)

    def _change_watch(self, member: Member, now: float) -> None:
        """The member is near from now on, or it is no more."""
        if member.peer in self._probes.near:
            member.quiet_since = now if self.is_here(member, now) else member.quiet_since
            self._probes.by(member, now + self._probes.interval)
        else:
            member.gone_at = member.gone_at if self.is_here(member, now) else min(member.gone_at, now)
            member.quiet_since = FOR_EVER
            self._probes.again(member, now)
        self._presence.touch(member, now)

    def _of_itself(self, peer: str) -> Rumour | None:
        """Return what the peer must hear of itself: that it is held to be gone, or of its earlier life."""
        rumour, member = self._gossip.get(peer), self._members.get(peer)
        if rumour is None or member is None:
            return None
        wrong = rumour.standing is not Standing.HERE or is_later(rumour.incarnation, member.incarnation)
        return rumour if wrong else None

    # --- rumours ----------------------------------------------------------------------------------------------

    def _take(self, news: News, teller: Member, now: float) -> None:
        """Take what a member tells. If it is wrong about us, let it know."""
        self._gossip.heard(news)
        for rumour in news.rumours[: NEWS_AT_MOST + 1]:
            self._hear_of(rumour, teller, now, fresh=True)
        for rumour in news.known[:KNOWN_AT_MOST]:
            self._hear_of(rumour, teller, now, fresh=False)

    def _hear_of(self, rumour: Rumour, teller: Member, now: float, fresh: bool) -> None:
        """Take one rumour. If it is not ``fresh``, and we just did not know the member, others do."""
        known = self._gossip.get(rumour.peer)
        if known is rumour:
            return
        if rumour.peer == self._me:
            if self._gossip.contradict(rumour):
                self._probes.soon(teller, now)
        elif known is None:
            if rumour.standing is Standing.HERE and (member := self._add(rumour.peer, now, hearsay=True)) is not None:
                self._believe(member, rumour, now, fresh)
        elif rumour.beats(known):
            self._believe(self._members[rumour.peer], rumour, now)
        elif rumour.incarnation == known.incarnation and rumour.schema and not known.schema:
            member = self._members[rumour.peer]
            self._note(member, rumour.name or member.name, rumour.schema, member.addresses or rumour.addresses)

    def _believe(self, member: Member, rumour: Rumour, now: float, fresh: bool = True) -> None:
        addresses = rumour.addresses or member.addresses
        self._note(member, rumour.name or member.name, rumour.schema or member.schema, addresses)
        whole = rumour.addresses and (rumour.name, rumour.schema) == (member.name, member.schema)
        told = rumour if whole else self._rumour(member, rumour.incarnation, rumour.standing)
        self._gossip.learn(told, fresh)
        if rumour.standing is Standing.HERE:
            self._bring_back(member, now)
        else:
            self._doubt(member, rumour.standing, now)
        self._presence.touch(member, now)

    def _bring_back(self, member: Member, now: float) -> None:
        """It is told to be here. What we find ourselves soon says more."""
        near = member.peer in self._probes.near
        member.gone_at = FOR_EVER
        member.silences = min(member.silences, GONE_SILENCES - 1)
        if not near or not self.is_here(member, now):
            member.quiet_since = now if near else FOR_EVER
        if near and (member.heard is None or member.silences):
            self._probes.soon(member, now)
        elif not near:
            self._probes.again(member, now)

    def _doubt(self, member: Member, standing: Standing, now: float) -> None:
        """It is told to be gone. Unless it has said goodbye it has time to contradict, and hears of it from us."""
        heard = self._presence.was_heard_of_late(member, now)
        if standing is Standing.LEFT and not heard:
            member.gone_at = min(member.gone_at, now)
            return
        doubts = DOUBTS + len(self._members).bit_length() / 2
        member.gone_at = min(member.gone_at, now + doubts * self._probes.interval)
        if heard:
            self._probes.soon(member, now)

    def _spread(self, member: Member, standing: Standing) -> None:
        """Tell everyone that it is gone, if it is told to be here."""
        known = self._gossip.get(member.peer)
        if known is not None and known.standing < standing:
            self._gossip.learn(replace(known, standing=standing))

    def _note(self, member: Member, name: str, schema: str, addresses: tuple[str, ...]) -> None:
        """Keep what the member is called, what it trains and where it is; what nobody could know is news."""
        if (name, schema, addresses) == (member.name, member.schema, member.addresses):
            return
        if schema != member.schema:
            self._presence.train(member, schema)
        member.name, member.addresses = name, addresses
        known = self._gossip.get(member.peer)
        if known is not None:
            rumour = self._rumour(member, known.incarnation, known.standing)
            self._gossip.learn(rumour, fresh=rumour.schema != known.schema or not known.addresses)

    def _rumour(self, member: Member, incarnation: int, standing: Standing = Standing.HERE) -> Rumour:
        addresses = member.addresses[:ADDRESSES_AT_MOST]
        return Rumour(member.peer, standing, incarnation, member.name, member.schema, addresses)

    # --- room -------------------------------------------------------------------------------------------------

    def _add(self, peer: str, now: float, hearsay: bool = False) -> Member | None:
        """Return the member, new if need be. ``hearsay``: ``_believe`` follows, and says when to probe it."""
        if peer == self._me:
            return None
        member = self._members.get(peer)
        if member is None and self._has_room(now, hearsay):
            member = self._members[peer] = Member(peer)
            self._probes.added(member, now)
            if not hearsay:
                self._presence.touch(member, now)
                self._probes.at(member, now)
        return member

    def _has_room(self, now: float, hearsay: bool) -> bool:
        """Say whether there is room, or make some: of the gone, or for who speaks to us of those never heard."""
        if len(self._members) < self._policy.peer_limit:
            return True
        if hearsay and now < self._full_until:
            return False
        keep = self._probes.busy
        spare = [member for member in self if member.peer not in keep and self._may_go(member, hearsay, now)]
        if not spare:
            self._full_until = now + self._probes.interval
            return False
        self._forget(min(spare, key=lambda member: (NEVER if member.heard is None else member.heard, member.peer)))
        return True

    def _may_go(self, member: Member, hearsay: bool, now: float) -> bool:
        return not self.is_here(member, now) or (member.heard is None and not hearsay)

    def _forget(self, member: Member) -> None:
        del self._members[member.peer]
        self._gossip.forget(member.peer)
        self._presence.forget(member)
        self._probes.removed(member)
