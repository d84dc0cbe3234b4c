"""One seed played to its end, and what came of it as plain values that travel between processes."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from decaf_node.sim.pace import mean_length
from decaf_node.sim.plan import Plan
from decaf_node.sim.problem import Measure
from decaf_node.sim.violation import Violation
from decaf_node.sim.world import World


@dataclass(frozen=True)
class Finding:
    """A check that failed, or an error of the machine itself. transcript: the last events, oldest first."""

    check: str
    message: str
    transcript: tuple[str, ...]


@dataclass(frozen=True)
class Pace:
    """How far a node came. alone: rounds that it would have trained in the same time without a mesh."""

    device: str
    seconds: float
    rounds: int
    alone: float


@dataclass(frozen=True)
class Outcome:
    """One run. edges: mixed and settled; one_sided: of them, at one end only; unreasoned: though no state was lost.

    wait_longest: the longest exchange, in virtual seconds; seconds: real time that the run took.
    """

    seed: int
    finding: Finding | None
    trace: str
    steps: int
    seconds: float
    virtual_seconds: float
    paces: tuple[Pace, ...]
    edges: int
    one_sided: int
    unreasoned: int
    adoptions: int
    frames: int
    hellos: int
    bytes: int
    wait_longest: float
    receipts_most: int
    members_most: int
    struck: tuple[tuple[str, int], ...]
    curve: tuple[tuple[float, Measure], ...]


@contextmanager
def _no_garbage_collector() -> Iterator[None]:
    """A world grows and makes hardly any garbage: looking for it again and again costs a third of a large one."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_no_garbage_collector()
def play(
    plan: Plan,
    seed: int,
    make: Callable[[Plan, int], World] = World,
    passed: Callable[[float, int], None] | None = None,
) -> Outcome:
    """Play one seed. ``make`` builds the world; tests plant bugs through it.

    passed: hears once a round how many virtual seconds and steps were played
    """
    started = time.perf_counter()
    world = make(plan, seed)
    world.passed = passed
    finding = _run(world)
    ends, one_sided, unreasoned = world.checks.one_sided(_settled(world))
    return Outcome(
        seed=seed,
        finding=finding,
        trace=world.trace.digest(),
        steps=world.trace.steps,
        seconds=time.perf_counter() - started,
        virtual_seconds=world.now,
        paces=tuple(
            Pace(host.device, host.pace, host.completed, (world.now - host.began) / mean_length(host.pace))
            for host in world.hosts
            if host.life
        ),
        edges=(ends + one_sided) // 2,  # an edge that counts at both ends was met at both
        one_sided=one_sided,
        unreasoned=unreasoned,
        adoptions=world.adoptions,
        frames=world.network.frames,
        hellos=world.network.hellos,
        bytes=world.network.bytes,
        wait_longest=world.checks.wait_longest,
        receipts_most=world.checks.ledger_most,
        members_most=world.checks.members_most,
        struck=tuple(sorted(world.struck.items())),
        curve=tuple(world.curve),
    )


def _settled(world: World) -> float:
    """Return until when edges count: of a later one, an end may still be about to mix."""
    plan = world.plan
    return min(plan.quiet_from, world.now - plan.slowest - plan.policy().wait_ceiling)


def _run(world: World) -> Finding | None:
    """Return what was found. Whatever error the machine raises is a finding, with its seed."""
    try:
        world.run()
    except Violation as violation:
        return Finding(violation.check, violation.message, tuple(world.trace.transcript()))
    except Exception as error:  # noqa: BLE001 - a simulator is there to find errors that nobody expects
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__} at {place.filename}:{place.lineno}: {error}"
        return Finding("crash", message, tuple(world.trace.transcript()))
    return None
