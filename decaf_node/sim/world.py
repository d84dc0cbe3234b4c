"""One simulated mesh: devices, network, discovery, faults and checks around real ``Node`` objects, from one seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

from decaf_node.mesh import events as ev
from decaf_node.mesh.events import Saved
from decaf_node.mesh.node import Node
from decaf_node.mesh.policy import Policy
from decaf_node.sim.agenda import Agenda
from decaf_node.sim.checks import Checks
from decaf_node.sim.discovery import Discovery
from decaf_node.sim.disk import SavedRound
from decaf_node.sim.host import Host
from decaf_node.sim.network import FAST_LINK, SLOW_LINK, Content, Network
from decaf_node.sim.plan import Plan
from decaf_node.sim.problem import Averaging, Measure, Problem
from decaf_node.sim.strikes import plan_strikes
from decaf_node.sim.trace import Trace

SCHEMA = "5c" * 32
STARTS_WITHIN = 5.0  # seconds in which the founding nodes start
FIRST_NEWCOMER, LAST_NEWCOMER = 0.2, 0.7  # of the time in which faults strike
OFF_BEAT = 0.5  # of a round: nodes of one pace mix about when a round is full, and are looked at in between


class World:
    """``run`` plays all of it, and raises ``Violation`` where a check fails."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.seed = seed
        self.schema = SCHEMA
        self.random = Random(f"world {seed}")
        self.plan = plan.drawn(self.random)
        self.agenda = Agenda()
        self.trace = Trace()
        self.problem = make_problem(self.plan, seed)
        self.hosts: list[Host] = []
        self.struck: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.adoptions = 0
        self._clones = 0
        self.passed: Callable[[float, int], None] | None = None  # hears how far it is
        self.curve: list[tuple[float, Measure]] = []
        self.network = Network(self, Random(f"network {seed}"))
        self.discovery = Discovery(self, Random(f"discovery {seed}"))
        self.checks = Checks(self)
        self._populate()

    @property
    def now(self) -> float:
        """Return the virtual time, in seconds."""
        return self.agenda.now

    def run(self) -> None:
        """Play the whole run."""
        plan = self.plan
        plan_strikes(self, self.random, 0.8 * plan.span)
        self.agenda.at(plan.span, self._calm)
        for number in range(math.ceil(plan.length / plan.round_seconds)):
            self.agenda.at((number + OFF_BEAT) * plan.round_seconds, self._measure)
        self.agenda.run(plan.length)
        self._measure()
        if plan.faults.strikes:
            self.checks.finish(plan.quiet_from)

    # --- what a world is made of, to be replaced by tests that plant a bug -------------------------------------

    def make_node(self, name: str, policy: Policy, random: Random, saved: Saved | None) -> Node:
        """Return the machine of a node that starts."""
        return Node(name, policy, random, saved)

    def commit(self, host: Host, saved: SavedRound, effect: ev.SaveRound) -> None:
        """Make a round durable, which takes a while, and only then say so."""
        host.later(self.random.uniform(0.01, 0.2), self._committed, host, saved, effect)

    def _committed(self, host: Host, saved: SavedRound, effect: ev.SaveRound) -> None:
        if host.disk.full:
            return host.post(ev.SaveFailed(saved.round, "no space left on the disk"))
        host.disk.commit(saved, effect.covers, effect.unheard)
        return host.later(self.random.uniform(0.0, 0.02), self.acknowledge, host, saved.round)

    def served(self, host: Host, content: Content) -> Content:
        """Return what a host sends when this snapshot of its is asked for."""
        return content

    def acknowledge(self, host: Host, round: int) -> None:
        """Tell the node that its round is durable."""
        host.disk.acknowledged = round
        host.post(ev.RoundSaved(round))

    # --- devices ---------------------------------------------------------------------------------------------

    def clone(self, host: Host) -> Host:
        """Return a device with a copy of the other's disk, and so of its identity."""
        self._clones += 1
        twin = Host(self, f"{host.device}'{self._clones}", host.name, host.number, host.policy, host.pace)
        twin.disk = host.disk.copy()
        twin.distance, twin.bandwidth, twin.rate, twin.wall = host.distance, host.bandwidth, host.rate, host.wall
        self.hosts.append(twin)
        self.checks.cloned(host.name)
        self.discovery.clone(host, twin)
        return twin

    def remove(self, twin: Host, original: Host) -> None:
        """The clone goes away; whoever dials its name gets at the original again."""
        twin.kill()
        self.hosts.remove(twin)
        self.network.routes[original.name] = original
        self.network.forget(twin)

    def _populate(self) -> None:
        plan, random = self.plan, self.random
        policy, aside = plan.drawn_policy(random), plan.drawn_aside(random)
        for number, name in enumerate(plan.names):
            pace = plan.round_seconds * plan.spread ** random.uniform(-0.5, 0.5)
            own = replace(policy, exchange=number != aside)
            self.hosts.append(self._equipped(Host(self, name, name, number, own, pace)))
        self.discovery.settle(self.hosts)
        late = max(0, min(plan.nodes - 2, round(plan.faults.newcomers * plan.nodes)))
        newcomers = set(random.sample(range(plan.nodes), late))
        for host in self.hosts:
            time = (
                random.uniform(FIRST_NEWCOMER, LAST_NEWCOMER) * plan.span
                if host.number in newcomers
                else random.uniform(0, STARTS_WITHIN)
            )
            self.agenda.at(time, host.start)

    def _equipped(self, host: Host) -> Host:
        faults, random = self.plan.faults, self.random
        host.distance = random.choice([0.0003, 0.001, 0.02])
        host.bandwidth = SLOW_LINK if random.random() < faults.slow_links else FAST_LINK
        host.rate = 1.0 + random.uniform(-faults.skew, faults.skew)
        return host

    def _calm(self) -> None:
        """Faults are over: everyone is there again, and everything works."""
        self.network.calm()
        for host in list(self.hosts):
            host.disk.full = False
            host.trainer.bad.clear()
            if host.frozen:
                host.thaw()
            if not host.up:
                host.start()
            host.post(ev.ResumeRequested())

    def _measure(self) -> None:
        """Look at all that share the mesh's state, before the first mix at all; and say how far it is."""
        running = [host for host in self.hosts if host.up and host.trainer.value is not None]
        members = [host for host in running if host.node.rounds.mixes] or running
        if members:
            self.curve.append((self.now, self.problem.measure([host.trainer.value for host in members])))
        if self.passed is not None:
            self.passed(self.now, self.trace.steps)


def make_problem(plan: Plan, seed: int) -> Problem:
    """Return the problem of one seed. torch is loaded for the real kernel only."""
    if plan.payload == "none":
        return Averaging(plan.nodes, seed)
    from decaf_node.sim.least_squares import LeastSquares

    return LeastSquares(plan.nodes, seed)
