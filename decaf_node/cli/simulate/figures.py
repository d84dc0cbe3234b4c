"""What came of all seeds, as figures under names that stay."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from decaf_node.cli.simulate.choices import Choices
from decaf_node.sim.campaign import combined_trace
from decaf_node.sim.plan import Plan
from decaf_node.sim.run import Outcome, Pace

HOUR = 3600.0


@dataclass(frozen=True)
class Figures:
    """Sums over all seeds first, then the highest of any seed, then medians over the seeds; nan: not known.

    rounds: mixed by all nodes; hours: virtual, of all runs; slowest, fastest: rounds a virtual hour of that node;
    fastest_of_alone: as a part of those that it would train alone; frames, hellos: a node and round.
    """

    trace: str
    rounds: int
    steps: int
    virtual_hours: float
    edges: int
    one_sided: int
    unreasoned: int
    faults: dict[str, int]
    wait_longest_seconds: float
    wait_longest_rounds: float
    members_most: int
    receipts_most: int
    slowest_rounds_per_hour: float
    fastest_rounds_per_hour: float
    fastest_of_alone: float
    frames_per_round: float
    hellos_per_round: float
    adoptions: float
    consensus_start: float
    consensus_end: float
    loss_start: float
    loss_end: float


def figures(plan: Plan, outcomes: Sequence[Outcome]) -> Figures:
    """Return the figures of a campaign, or of as much of it as was played."""

    def median(figure: Callable[[Outcome], float]) -> float:
        known = [value for value in map(figure, outcomes) if math.isfinite(value)]
        return statistics.median(known) if known else math.nan

    longest = max((outcome.wait_longest for outcome in outcomes), default=math.nan)
    return Figures(
        trace=combined_trace(outcomes),
        rounds=sum(map(_rounds, outcomes)),
        steps=sum(outcome.steps for outcome in outcomes),
        virtual_hours=sum(outcome.virtual_seconds for outcome in outcomes) / HOUR,
        edges=sum(outcome.edges for outcome in outcomes),
        one_sided=sum(outcome.one_sided for outcome in outcomes),
        unreasoned=sum(outcome.unreasoned for outcome in outcomes),
        faults=_faults(outcomes),
        wait_longest_seconds=longest,
        wait_longest_rounds=longest / plan.round_seconds,
        members_most=max((outcome.members_most for outcome in outcomes), default=0),
        receipts_most=max((outcome.receipts_most for outcome in outcomes), default=0),
        slowest_rounds_per_hour=median(lambda outcome: _rate(_slowest(outcome), outcome)),
        fastest_rounds_per_hour=median(lambda outcome: _rate(_fastest(outcome), outcome)),
        fastest_of_alone=median(lambda outcome: _of_alone(_fastest(outcome))),
        frames_per_round=median(lambda outcome: ratio(outcome.frames, _rounds(outcome))),
        hellos_per_round=median(lambda outcome: ratio(outcome.hellos, _rounds(outcome))),
        adoptions=median(lambda outcome: outcome.adoptions),
        consensus_start=median(lambda outcome: outcome.curve[0][1].consensus if outcome.curve else math.nan),
        consensus_end=median(lambda outcome: outcome.curve[-1][1].consensus if outcome.curve else math.nan),
        loss_start=median(lambda outcome: outcome.curve[0][1].loss if outcome.curve else math.nan),
        loss_end=median(lambda outcome: outcome.curve[-1][1].loss if outcome.curve else math.nan),
    )


def document(
    choices: Choices, plan: Plan, outcomes: Sequence[Outcome], seconds: float, interrupted: bool
) -> dict[str, Any]:
    """Return what ``--json`` prints. seconds: real ones."""
    return {
        "seeds": len(outcomes),
        "first_seed": choices.first_seed,
        "interrupted": interrupted,
        "violations": list(_violations(choices, outcomes)),
        "seconds": seconds,
        **asdict(figures(plan, outcomes)),
        "plan": asdict(plan),
    }


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _violations(choices: Choices, outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    for outcome in outcomes:
        if outcome.finding is not None:
            yield {"seed": outcome.seed, **asdict(outcome.finding), "replay": choices.replay(outcome.seed)}


def _faults(outcomes: Iterable[Outcome]) -> dict[str, int]:
    struck = Counter[str]()
    for outcome in outcomes:
        struck.update(dict(outcome.struck))
    return dict(sorted(struck.items()))


def _rounds(outcome: Outcome) -> int:
    return sum(pace.rounds for pace in outcome.paces)


def _slowest(outcome: Outcome) -> Pace | None:
    return max(outcome.paces, key=lambda pace: (pace.seconds, -pace.rounds), default=None)


def _fastest(outcome: Outcome) -> Pace | None:
    return min(outcome.paces, key=lambda pace: (pace.seconds, -pace.rounds), default=None)


def _rate(pace: Pace | None, outcome: Outcome) -> float:
    return math.nan if pace is None else ratio(pace.rounds * HOUR, outcome.virtual_seconds)


def _of_alone(pace: Pace | None) -> float:
    return math.nan if pace is None else ratio(pace.rounds, pace.alone)
