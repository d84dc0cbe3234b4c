"""The simulation's words: what came of it, and what did not hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from decaf_node.cli.simulate.choices import Choices
from decaf_node.cli.simulate.figures import Figures, ratio
from decaf_node.cli.words import duration, number, percent
from decaf_node.sim.run import Finding, Outcome

OTHERS = 20  # violations told in a line each

Row = tuple[str, str]


def summary(
    choices: Choices, figures: Figures, outcomes: Sequence[Outcome], seconds: float, interrupted: bool
) -> RenderableType:
    """Return the table of figures; it fits into 80 columns."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold", max_width=62)
    for name, value in (*_checks(choices, figures, outcomes), *_pace(figures), *_costs(figures), *_learning(figures)):
        table.add_row(name, value)
    struck = ", ".join(f"{kind} {count}" for kind, count in figures.faults.items())
    table.add_row("faults", struck or "none struck")
    table.add_row("time", f"{figures.virtual_hours:,.1f} virtual hours in {duration(seconds)}")
    table.add_row("trace", figures.trace)
    stopped = Text("Stopped by Ctrl-C; this was finished:", style="yellow")
    return Group(*([stopped] if interrupted else []), table, *_reading(outcomes))


def violations(choices: Choices, outcomes: Sequence[Outcome]) -> Iterator[RenderableType]:
    """Tell what did not hold: of the first seed everything, of the others a line each."""
    found = [(outcome.seed, outcome.finding) for outcome in outcomes if outcome.finding is not None]
    for place, (seed, finding) in enumerate(found[: 1 + OTHERS]):
        if place == 0:
            yield from _whole(choices, seed, finding)
        else:
            yield Text(f"Seed {seed}: {finding.check}: {finding.message}")
    if len(found) > 1 + OTHERS:
        yield Text(f"{len(found) - 1 - OTHERS} more seeds failed; --json names them all.")


def _whole(choices: Choices, seed: int, finding: Finding) -> Iterator[RenderableType]:
    yield Text("\nThe last events before a check failed (seconds, device, event, effects):\n")
    yield Text("\n".join(finding.transcript), style="dim")
    yield Text(f"\nSeed {seed}: {finding.check}: {finding.message}", style="bold red")
    yield Text("It is played again by:")
    yield Text(f"  {choices.replay(seed)}", style="cyan", no_wrap=True, overflow="ignore")


def _checks(choices: Choices, figures: Figures, outcomes: Sequence[Outcome]) -> Iterator[Row]:
    last = choices.first_seed + len(outcomes) - 1
    yield "seeds", f"{len(outcomes)} ({choices.first_seed} to {last})" if len(outcomes) > 1 else str(len(outcomes))
    yield "violations", str(sum(outcome.finding is not None for outcome in outcomes))
    lone = f"{figures.one_sided:,} ({percent(ratio(figures.one_sided, figures.edges))})"
    yield (
        "edges",
        f"{figures.edges:,}, at one end only {lone}, without a known cause {figures.unreasoned:,}",
    )


def _pace(figures: Figures) -> Iterator[Row]:
    yield "slowest node", f"{number(figures.slowest_rounds_per_hour, 1)} rounds a virtual hour"
    alone = percent(figures.fastest_of_alone)
    yield (
        "fastest node",
        f"{number(figures.fastest_rounds_per_hour, 1)} rounds a virtual hour, {alone} of its pace alone",
    )
    longest = number(figures.wait_longest_seconds, 1)
    yield "longest wait", f"{longest} s, {number(figures.wait_longest_rounds, 2)} rounds"


def _costs(figures: Figures) -> Iterator[Row]:
    frames, hellos = number(figures.frames_per_round, 1), number(figures.hellos_per_round, 1)
    yield "messages", f"{frames} frames and {hellos} hellos a node and round"
    yield "most kept", f"{figures.members_most} members and {figures.receipts_most} receipts at a node"
    yield "adoptions", f"{number(figures.adoptions, 0)}"


def _learning(figures: Figures) -> Iterator[Row]:
    yield "distance", f"{number(figures.consensus_start)} at the start, {number(figures.consensus_end)} at the end"
    if not math.isnan(figures.loss_start):
        yield "loss", f"{number(figures.loss_start)} at the start, {number(figures.loss_end)} at the end"


def _reading(outcomes: Sequence[Outcome]) -> Iterator[RenderableType]:
    if len(outcomes) > 1:
        words = "Edges, faults, time are sums; longest, most are of any seed; the rest medians."
        yield Text(words, style="dim")
