"""The simulation from its beginning to its end: play all seeds, tell what came of them."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing, suppress

from decaf_node.cli.ending import ending_cleanly
from decaf_node.cli.output import console, print_json, print_rich
from decaf_node.cli.simulate.choices import Choices
from decaf_node.cli.simulate.figures import document, figures
from decaf_node.cli.simulate.plot import draw
from decaf_node.cli.simulate.report import summary, violations
from decaf_node.cli.simulate.view import View
from decaf_node.errors import Bug
from decaf_node.sim.campaign import cores, play_here, play_on_ray
from decaf_node.sim.plan import Plan
from decaf_node.sim.progress import Told
from decaf_node.sim.run import Outcome

INTERRUPTED = 130


def play(choices: Choices) -> int:
    """Play, print and draw; return the exit code. No worker runs any more when this returns or raises."""
    plan = choices.plan()
    started, outcomes = time.monotonic(), list[Outcome]()
    with ending_cleanly(), suppress(KeyboardInterrupt):
        collect(choices, plan, outcomes)
    seconds, interrupted = time.monotonic() - started, len(outcomes) < choices.seeds
    if choices.plot is not None and outcomes:
        draw(choices.plot, plan, outcomes)
    if choices.as_json:
        print_json(document(choices, plan, outcomes, seconds, interrupted))
    else:
        print_rich(
            summary(choices, figures(plan, outcomes), outcomes, seconds, interrupted), *violations(choices, outcomes)
        )
    if interrupted:
        return INTERRUPTED
    return Bug.exit_code if any(outcome.finding for outcome in outcomes) else 0


def collect(choices: Choices, plan: Plan, outcomes: list[Outcome]) -> None:
    """Add each outcome when it comes, and show how far it is; on Ctrl-C what came before stays."""
    view = View(console(to_errors=choices.as_json), choices.seeds, plan.length)
    with view, closing(_played(choices, plan, view.told)) as played:
        for outcome in played:
            outcomes.append(outcome)
            view.add(outcome)


def _played(choices: Choices, plan: Plan, told: Told) -> Generator[Outcome]:
    seeds = range(choices.first_seed, choices.first_seed + choices.seeds)
    if choices.ray is not None:
        return play_on_ray(plan, seeds, choices.ray)
    return play_here(plan, seeds, choices.jobs or cores(), told)
