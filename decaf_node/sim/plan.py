"""What is to be simulated: checked once, immutable, and the same for every seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from decaf_node.errors import UsageError
from decaf_node.mesh.policy import Policy, probe_interval
from decaf_node.mesh.topology import TOPOLOGIES, longest_period
from decaf_node.sim.faults import PROFILES, Faults
from decaf_node.sim.pace import LONGEST

PAYLOADS = ("none", "least-squares")
CEILING = 2.0  # rounds that a node waits at most for a neighbour
QUIET_ROUNDS = 4  # rounds of the slowest node, in which every pair of neighbours mixes again where they stay the same
NODES_AT_MOST = 10_000
ROUNDS_AT_MOST = 100_000
SPREAD_AT_MOST = 1000.0
STRIKES_AT_MOST = 3600.0  # a node and hour
DAY = 86400.0
LIMITED = 0.25  # of the seeds: training ends after so many rounds
ASIDE = 0.1  # of the seeds: one node does not exchange


@dataclass(frozen=True)
class Plan:
    """A mesh and what happens to it.

    rounds:        virtual time, in rounds of ``round_seconds``; nodes slower or faster than that have less or more
    spread:        how many times slower the slowest node may be than the fastest; drawn log-uniformly
    payload:       ``none``: a number a node is averaged; ``least-squares``: a small problem through the real kernel
    """

    nodes: int = 8
    topology: str = "auto"
    rounds: int = 30
    round_seconds: float = 60.0
    spread: float = 1.0
    payload: str = "none"
    faults: Faults = PROFILES["none"]
    overlap: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the nodes, sorted."""
        width = len(str(self.nodes - 1))
        return tuple(f"n{number:0{width}}" for number in range(self.nodes))

    @property
    def slowest(self) -> float:
        """Return the longest that a round may take, in seconds."""
        return self.round_seconds * math.sqrt(self.spread) * LONGEST

    @property
    def span(self) -> float:
        """Return the seconds in which faults strike."""
        return self.rounds * self.round_seconds

    @property
    def quiet_from(self) -> float:
        """Return when the mesh has come to rest after the faults: lost peers are found again, rounds are under way."""
        policy = self.policy()
        rest = self.slowest + policy.wait_ceiling + 2 * policy.redial_backoff
        return self.span + (rest if self.faults.strikes else 0.0)

    @property
    def length(self) -> float:
        """Return the virtual seconds of a run. After the faults there is time for everyone to mix with everyone.

        Where partners change from turn to turn that takes a period more: in many of its turns a node has others.
        """
        rounds = QUIET_ROUNDS + longest_period(self.topology, self.nodes)
        return self.quiet_from + (rounds * self.slowest if self.faults.strikes else 0.0)

    def policy(self) -> Policy:
        """Return what every node is told, where nothing is drawn."""
        return Policy(
            topology=self.topology,
            overlap=self.overlap,
            wait_floor=min(1.0, self.round_seconds / 10),
            wait_ceiling=CEILING * self.round_seconds,
            peer_limit=max(16, 2 * self.nodes),
            probe_every=probe_interval(self.round_seconds),
        )

    def drawn(self, random: Random) -> Plan:
        """Return what one seed plays."""
        if not self.faults.varied:
            return self
        return replace(self, spread=self.spread ** random.choice([0.0, 0.5, 1.0]))

    def drawn_policy(self, random: Random) -> Policy:
        """Return the policy of one seed, which all of its nodes have."""
        policy = self.policy()
        if not self.faults.varied:
            return policy
        return replace(
            policy,
            overlap=random.random() < 0.5,
            limit=random.randint(1, self.rounds) if random.random() < LIMITED else 0,
            save_every=random.choice([0.0, self.round_seconds, 3 * self.round_seconds]),
            adopt_after=random.choice([2 * self.round_seconds, policy.adopt_after]),
            unsaved_receipts=random.choice([16, policy.unsaved_receipts]),
        )

    def drawn_aside(self, random: Random) -> int | None:
        """Return the number of the node that trains alone in this seed, if any does."""
        if self.faults.varied and self.nodes > 3 and random.random() < ASIDE:
            return random.randrange(self.nodes)
        return None


def check(plan: Plan) -> Plan:
    """Return the plan, or raise UsageError ``simulate.impossible`` with the one thing that cannot be."""
    for wrong, sentence in _RULES:
        if wrong(plan):
            raise UsageError("simulate.impossible", sentence(plan))
    return plan


# A comparison with NaN is false, so each rule asks for what is right.
_RULES: tuple[tuple[Callable[[Plan], bool], Callable[[Plan], str]], ...] = (
    (
        lambda plan: not 2 <= plan.nodes <= NODES_AT_MOST,
        lambda plan: f"A mesh of {plan.nodes} cannot be simulated; give --nodes from 2 to {NODES_AT_MOST}.",
    ),
    (
        lambda plan: plan.topology not in TOPOLOGIES,
        lambda plan: f"No topology is called {plan.topology!r}; choose one of {', '.join(TOPOLOGIES)}.",
    ),
    (
        lambda plan: plan.topology in ("ring", "torus") and plan.nodes < 3,
        lambda plan: f"A {plan.topology} needs 3 nodes, and --nodes is {plan.nodes}.",
    ),
    (
        lambda plan: plan.payload not in PAYLOADS,
        lambda plan: f"No payload is called {plan.payload!r}; choose one of {', '.join(PAYLOADS)}.",
    ),
    (
        lambda plan: not 1 <= plan.rounds <= ROUNDS_AT_MOST,
        lambda plan: f"{plan.rounds} rounds cannot be simulated; give --rounds from 1 to {ROUNDS_AT_MOST}.",
    ),
    (
        lambda plan: not 1.0 <= plan.round_seconds <= DAY,
        lambda plan: f"A round of {plan.round_seconds} s cannot be; give --round-seconds from 1 to {DAY:.0f}.",
    ),
    (
        lambda plan: not 1.0 <= plan.spread <= SPREAD_AT_MOST,
        lambda plan: (
            f"Nodes cannot differ in speed by a factor of {plan.spread}; give --spread from 1 to {SPREAD_AT_MOST:.0f}."
        ),
    ),
    (
        lambda plan: not 0.0 <= plan.faults.loss < 1.0,
        lambda plan: f"No part {plan.faults.loss} of the packets can be lost; give --loss from 0 to less than 1.",
    ),
    (
        lambda plan: not 0.0 <= plan.faults.cuts < 1.0,
        lambda plan: f"No part {plan.faults.cuts} of the frames can break a stream; give --cuts from 0 to less than 1.",
    ),
    (
        lambda plan: not 0.0 <= plan.faults.strikes <= STRIKES_AT_MOST,
        lambda plan: (
            f"A node is not struck {plan.faults.strikes} times an hour; give --churn from 0 to {STRIKES_AT_MOST:.0f}."
        ),
    ),
)
