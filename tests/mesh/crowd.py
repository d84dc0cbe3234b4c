"""Many nodes that only greet each other: virtual time, seeded delays, crashes and cuts; messages are counted."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from decaf_node.mesh import events as ev
from decaf_node.mesh.node import Node
from decaf_node.mesh.policy import Policy
from decaf_node.mesh.rumours import News
from tests.mesh.script import SCHEMA

POLICY = Policy(topology="ring")
EVERY = POLICY.probe_every
SILENCE = 3.0  # seconds until a hello that nobody answers is given up


@dataclass
class Count:
    """What went over the network."""

    hellos: int = 0
    messages: int = 0
    rumours: int = 0
    most: int = 0

    def add(self, news: News) -> None:
        self.messages += 1
        self.rumours += len(news.rumours) + len(news.known)
        self.most = max(self.most, len(news.rumours) + len(news.known))


@dataclass
class Person:
    """One node. life: which of its lives, so that what was under way in an earlier one is lost."""

    node: Node
    static: str
    up: bool = True
    life: int = 1
    awake: int = 0
    side: int = 0


class Crowd:
    """All nodes. Each knows the address of one ``static`` peer at most, and finds the others by rumours."""

    def __init__(self, seed: int, policy: Policy = POLICY) -> None:
        self.now = 0.0
        self.count = Count()
        self.people: dict[str, Person] = {}
        self._policy = policy
        self._random = Random(seed)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    # --- what happens ------------------------------------------------------------------------------------------

    def join(self, name: str, static: str = "") -> None:
        """A node starts, or starts again with nothing remembered."""
        life = self.people[name].life + 1 if name in self.people else 1
        person = Person(Node(name, self._policy, Random(f"{name} {life}"), None), static, life=life)
        self.people[name] = person
        self._step(name, ev.TrainerStarted(SCHEMA, 8))
        if static:
            self._greet_static(name, person.life)

    def crash(self, name: str) -> None:
        self.people[name].up = False

    def leave(self, name: str) -> None:
        """It says goodbye to those around it, and is gone."""
        node = self.people[name].node
        for view in node.view(self.now).peers:
            if view.neighbour:
                self._later(partial(self._step, view.peer, ev.PeerLeft(name)))
        self.crash(name)

    def found(self, count: int) -> list[str]:
        """Let so many nodes start at once, each knowing one that has; return their names."""
        names = [f"n{i:04}" for i in range(count)]
        for i, name in enumerate(names):
            self.join(name, self._random.choice(names[:i]) if i else "")
        return names

    def run(self, intervals: float) -> None:
        until = self.now + intervals * EVERY
        while self._queue and self._queue[0][0] <= until:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = until

    def intervals_until(self, holds: Callable[[], bool], most: int) -> int:
        """Let time pass until it holds; return how many probe intervals that took."""
        for passed in range(most + 1):
            if holds():
                return passed
            self.run(1)
        raise AssertionError(f"not within {most} intervals")

    # --- what is known -----------------------------------------------------------------------------------------

    def here(self, name: str) -> set[str]:
        """Return whom the node holds to be here."""
        members = self.people[name].node.members
        return {member.peer for member in members if members.is_here(member, self.now)}

    def up(self) -> set[str]:
        return {name for name, person in self.people.items() if person.up}

    def knows(self, name: str, here: bool = True) -> bool:
        """Say whether all that are up hold the node to be here, or gone."""
        others = [self.people[other].node.members for other in self.up() - {name}]
        members = [(node, node.get(name)) for node in others]
        return all((member is not None and node.is_here(member, self.now)) == here for node, member in members)

    def agrees(self) -> bool:
        """Say whether each node that is up holds just those to be here that are."""
        up = self.up()
        return all(self.here(name) == up - {name} for name in up)

    # --- the network -------------------------------------------------------------------------------------------

    def _at(self, time: float, action: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (time, self._number, action))

    def _later(self, action: Callable[[], None]) -> None:
        self._at(self.now + self._random.uniform(0.001, 0.1), action)

    def _step(self, name: str, event: ev.Event) -> None:
        person = self.people[name]
        if not person.up:
            return
        for effect in person.node.step(event, self.now):
            if isinstance(effect, ev.StartTraining):
                continue
            assert isinstance(effect, ev.ProbePeer)
            known = person.node.members.get(effect.peer)
            assert known is not None
            assert known.addresses, "nobody is probed without an address"
            self._greet(name, effect.peer, effect.news)
        person.awake += 1
        deadline = person.node.deadline()
        if deadline is not None:
            assert deadline > self.now, "it wants a tick that does nothing"
            self._at(deadline, partial(self._tick, name, person.awake, person.life))

    def _tick(self, name: str, awake: int, life: int) -> None:
        person = self.people[name]
        if (person.awake, person.life) == (awake, life):
            self._step(name, ev.Tick())

    def _reaches(self, one: str, other: str) -> bool:
        return self.people[other].up and self.people[one].side == self.people[other].side

    def _greet(self, name: str, peer: str, news: News) -> None:
        self.count.hellos += 1
        self.count.add(news)
        life = self.people[name].life
        self._later(lambda: self._greeted(name, life, peer, news))

    def _greeted(self, name: str, life: int, peer: str, news: News) -> None:
        if not self._reaches(name, peer):
            self._at(self.now + SILENCE, lambda: self._back(name, life, ev.PeerSilent(peer, "no answer")))
            return
        self._step(peer, ev.HelloReceived(name, name.upper(), SCHEMA, 0, (f"{name}:1",), news))
        answer = self.people[peer].node.news(name, news)
        self.count.add(answer)
        self._later(lambda: self._back(name, life, ev.PeerAnswered(peer, peer.upper(), SCHEMA, 0, answer)))

    def _back(self, name: str, life: int, event: ev.PeerAnswered | ev.PeerSilent) -> None:
        if self.people[name].life == life:
            self._step(name, event)

    def _greet_static(self, name: str, life: int) -> None:
        """Say hello to the static peer now and again, as hosts do."""
        person = self.people[name]
        if person.life == life and person.up:
            self._step(name, ev.PeerFound(person.static, (f"{person.static}:1",)))
            self._at(self.now + self._policy.redial_backoff, lambda: self._greet_static(name, life))
