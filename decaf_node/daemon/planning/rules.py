"""What ``decaf-node plan`` recommends: a few rules, each with its reason. Pure.

The figures at the top are all that there is to tune.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from decaf_node.daemon.planning.forecast import Choice, Facts, degree
from decaf_node.mesh.topology import FULL_UP_TO

SKEWED_FULL_UP_TO = 16  # members; where labels are skewed, agreeing is what takes longest
LEAST_STEPS = 20  # local steps a round, where every node sees data of every kind
SKEWED_LEAST_STEPS = 4  # where not: an exchange is worth more than a step
OVERLAPPED = 0.5  # of the local steps of a round, the most that exchange and mix may take while training goes on
APART = 0.2  # the same where training waits for them
LONGEST_EXCHANGE = 300.0  # seconds; beyond, less is sent
LEAST_SECONDS = 2.0  # of a round: publishing, inspecting, evaluating and saving take their time in each
LEAST_RANK = 4
PARTS = {"bfloat16": "half", "int8": "a quarter", "compact": "a tenth"}
WAIT = 2.0  # exchanges: how long to wait for a neighbour at most


@dataclass(frozen=True)
class Advice:
    """One line of the settings, and why."""

    section: str
    key: str
    value: str | int | float
    reason: str


@dataclass(frozen=True)
class Recommended:
    """choice: what the advice comes to, for a forecast."""

    choice: Choice
    advice: tuple[Advice, ...]


def recommend(facts: Facts, now: Choice, wait_ceiling: float, skewed: bool) -> Recommended:
    """Return what to set. now, wait_ceiling: as they are set; where rounds end by steps they go on doing so."""
    topology = _topology(facts, skewed)
    rank = _rank(facts, str(topology.value), now.rank)
    choice = replace(now, topology=str(topology.value), wire="float32", rank=int(rank.value))
    wire = _wire(facts, choice, now.wire, skewed)
    choice = replace(choice, wire=str(wire.value))
    advice = [topology, wire, rank]
    steps = _steps(facts, choice, skewed)
    if steps is not None and facts.step_seconds is not None:
        seconds = float(math.ceil(steps * facts.step_seconds))
        choice = replace(choice, steps=steps) if now.steps else replace(choice, seconds=seconds)
        advice.append(_length(choice, steps, seconds, _why(facts, choice, skewed)))
    return Recommended(choice, (*advice, *_wait(facts, choice, wait_ceiling)))


def exchange(facts: Facts, topology: str, wire: str, rank: int) -> float | None:
    """Return how long a round's snapshots take on the link."""
    if facts.link is None:
        return None
    return degree(topology, facts.nodes) * facts.size.of(wire, rank) / facts.link


def _topology(facts: Facts, skewed: bool) -> Advice:
    most = SKEWED_FULL_UP_TO if skewed else FULL_UP_TO
    whole = exchange(facts, "full", facts.wires[-1], facts.size.rank)
    if facts.nodes <= most and (whole is None or whole <= LONGEST_EXCHANGE):
        return Advice("mesh", "topology", "full", f"up to {most} nodes all agree at once")
    sparse = "exponential" if skewed else "random-regular"
    if degree(sparse, facts.nodes) == facts.nodes - 1:
        return Advice("mesh", "topology", "full", "so few nodes are all neighbours in any graph")
    if skewed:
        return Advice("mesh", "topology", sparse, "skewed data must agree fast: few rounds from node to node")
    reason = "few neighbours, and a node that joins or leaves concerns few others"
    return Advice("mesh", "topology", sparse, reason)


def _rank(facts: Facts, topology: str, rank: int) -> Advice:
    fitting = rank
    while fitting // 2 >= LEAST_RANK and _too_long(exchange(facts, topology, facts.wires[-1], fitting)):
        fitting //= 2
    if fitting == rank:
        return Advice("lora", "r", rank, "as it is: the link carries it")
    return Advice("lora", "r", fitting, f"a rank of {rank} would take longer than {LONGEST_EXCHANGE:g} s to exchange")


def _too_long(seconds: float | None) -> bool:
    return seconds is not None and seconds > LONGEST_EXCHANGE


def _wire(facts: Facts, choice: Choice, now: str, skewed: bool) -> Advice:
    wanted = _wanted(facts, skewed)
    needed = {wire: _needed(facts, replace(choice, wire=wire)) for wire in facts.wires}
    if wanted is None or None in needed.values():
        return Advice("mixing", "wire", now, "as it is: the speed of link or device is not known")
    wire = next(
        (wire for wire, seconds in needed.items() if seconds is not None and seconds <= wanted), facts.wires[-1]
    )
    if wire == "float32":
        return Advice("mixing", "wire", wire, "the link is fast enough for full precision")
    return Advice("mixing", "wire", wire, f"the link is the bottleneck: {PARTS[wire]} of the bytes")


def _steps(facts: Facts, choice: Choice, skewed: bool) -> int | None:
    """Return how many local steps a round is to have: enough for its exchange, else few, and fewer for skewed data."""
    if facts.step_seconds is None:
        return None
    needed = max(LEAST_SECONDS, _needed(facts, choice) or 0.0)
    return max(_least(skewed), math.ceil(needed / facts.step_seconds))


def _why(facts: Facts, choice: Choice, skewed: bool) -> str:
    wanted, needed = _wanted(facts, skewed), _needed(facts, choice)
    if wanted is not None and needed is not None and needed > wanted:
        return f"exchange and mix take at most {OVERLAPPED if facts.overlap else APART:.0%} of it"
    return "short: skewed data must agree often" if skewed else "short enough, and no burden to the link"


def _length(choice: Choice, steps: int, seconds: float, why: str) -> Advice:
    if choice.steps:
        return Advice("round", "steps", steps, f"about {seconds:g} s on this device; {why}")
    return Advice("round", "seconds", seconds, f"about {steps:,} steps of this device; {why}")


def _wait(facts: Facts, choice: Choice, ceiling: float) -> Sequence[Advice]:
    taken = exchange(facts, choice.topology, choice.wire, choice.rank)
    if taken is None or WAIT * taken <= ceiling:
        return ()
    return (Advice("round", "wait_ceiling", math.ceil(WAIT * taken), f"an exchange takes about {taken:.0f} s"),)


def _least(skewed: bool) -> int:
    return SKEWED_LEAST_STEPS if skewed else LEAST_STEPS


def _wanted(facts: Facts, skewed: bool) -> float | None:
    """Return the seconds of local steps that a round would have on an endlessly fast link."""
    return None if facts.step_seconds is None else max(LEAST_SECONDS, _least(skewed) * facts.step_seconds)


def _needed(facts: Facts, choice: Choice) -> float | None:
    """Return the least seconds of local steps beside which exchange and mix are in proportion."""
    taken = exchange(facts, choice.topology, choice.wire, choice.rank)
    if taken is None:
        return None
    return (taken + (facts.mix_seconds or 0.0)) / (OVERLAPPED if facts.overlap else APART)
