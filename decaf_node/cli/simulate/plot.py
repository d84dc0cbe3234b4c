"""The picture of a simulation: how the mesh comes together and learns, and who mixes with whom."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from decaf_node.cli.picture import BLUE, GREY, ORANGE, around_a_circle, circle, draw_names, new_figure, write
from decaf_node.sim.plan import Plan
from decaf_node.sim.problem import Measure
from decaf_node.sim.run import Outcome
from decaf_node.sim.shape import edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN = 32  # nodes whose graph can be told apart
BAND = (0.1, 0.9)  # of the seeds
FLOOR = 1e-9  # below it nodes agree to rounding


def draw(path: Path, plan: Plan, outcomes: Sequence[Outcome]) -> None:
    """Write the curves, and of a small mesh the graph. Raises TryAgain ``simulate.plot-not-written``."""
    panels = [_draw_distance]
    panels += [_draw_loss] if plan.payload != "none" else []
    panels += [_draw_graph] if plan.nodes <= DRAWN else []
    figure = new_figure(1 + 5 * len(panels), 4.6, _title(plan, outcomes))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel(axes, plan, outcomes)
    write(figure, path, "simulate.plot-not-written")


def _title(plan: Plan, outcomes: Sequence[Outcome]) -> str:
    many = f"{len(outcomes)} seeds" if len(outcomes) > 1 else f"seed {outcomes[0].seed}"
    speed = f", speeds up to {plan.spread:g} times apart" if plan.spread > 1 else ""
    return f"{plan.nodes} simulated nodes, topology {plan.topology}{speed}, {many}"


def _draw_distance(axes: Axes, plan: Plan, outcomes: Sequence[Outcome]) -> None:
    _draw_curve(axes, plan, outcomes, lambda measure: max(measure.consensus, FLOOR), BLUE)
    axes.set(yscale="log", ylabel="consensus distance (r.m.s. from the mean)")


def _draw_loss(axes: Axes, plan: Plan, outcomes: Sequence[Outcome]) -> None:
    _draw_curve(axes, plan, outcomes, lambda measure: max(measure.loss, FLOOR), ORANGE)
    axes.set(yscale="log", ylabel="loss over everyone's data (untrained: 1)")


def _draw_curve(
    axes: Axes, plan: Plan, outcomes: Sequence[Outcome], of: Callable[[Measure], float], colour: str
) -> None:
    """Draw the median over the seeds, and the band in which most of them are; not that all begin alike, with B = 0."""
    times, low, middle, high = _quantiles(outcomes, of)
    if len(middle) > 1 and middle[0] <= FLOOR < middle[1]:
        times, low, middle, high = times[1:], low[1:], middle[1:], high[1:]
    rounds = [time / plan.round_seconds for time in times]
    if len(outcomes) > 1:
        axes.fill_between(rounds, low, high, color=colour, alpha=0.2, linewidth=0, label="80 % of the seeds")
    axes.plot(rounds, middle, color=colour, linewidth=1.8, label="median" if len(outcomes) > 1 else None)
    if plan.faults.strikes:
        axes.axvline(plan.rounds, color=GREY, linestyle=":", label="faults are over")
    axes.set(xlabel=f"rounds of {plan.round_seconds:g} virtual seconds", xlim=(0, None))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def _quantiles(
    outcomes: Sequence[Outcome], of: Callable[[Measure], float]
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Return the times at which something is known, and three quantiles over the seeds at each."""
    known: dict[float, list[float]] = {}
    for outcome in outcomes:
        for time, measure in outcome.curve:
            if math.isfinite(value := of(measure)):
                known.setdefault(time, []).append(value)
    times = sorted(known)
    columns = [sorted(known[time]) for time in times]
    low, middle, high = ([quantile(column, part) for column in columns] for part in (BAND[0], 0.5, BAND[1]))
    return times, low, middle, high


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the value below which ``part`` of the sorted values lie, between two of them in proportion."""
    place = part * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _draw_graph(axes: Axes, plan: Plan, outcomes: Sequence[Outcome]) -> None:
    """Draw the nodes on a circle, in the order of their names, and an edge for each pair that mixes."""
    places = circle(plan.nodes)
    pairs = edges(plan)
    for one, other in pairs:
        axes.plot(*zip(places[one], places[other], strict=True), color=GREY, linewidth=0.8, alpha=0.7, zorder=1)
    across, up = zip(*places, strict=True)
    axes.scatter(across, up, s=60, color=BLUE, edgecolor="white", linewidth=1.2, zorder=2)
    draw_names(axes, plan.names, places)
    around_a_circle(axes)
    axes.set_title(f"who mixes with whom: {len(pairs)} edges", fontsize=10)
