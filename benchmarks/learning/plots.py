"""The results as a picture: accuracy on the way, over local steps and over bytes, a row for each table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from benchmarks.learning.runs import Run
from decaf_node.cli.picture import BLUE, ORANGE, new_figure, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OKABE_ITO = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # the others of theirs, and a grey
COLOURS = (BLUE, ORANGE, *OKABE_ITO, "#999999")
WIDTH, HEIGHT = 11.0, 3.2  # inches, of a row


def draw(tables: Mapping[str, Sequence[Run]], path: Path) -> None:
    """Write the picture. tables: runs by title; those without a curve (no neighbours) are level lines."""
    tables = {name: runs for name, runs in tables.items() if runs}
    methods = list(dict.fromkeys(_label(run) for runs in tables.values() for run in runs))
    colours = dict(zip(methods, COLOURS, strict=False))
    assert len(colours) == len(methods), "two methods of one colour are not told apart"
    figure = new_figure(WIDTH, HEIGHT * len(tables), "Accuracy, mean over nodes and seeds; shades: standard deviation")
    rows = figure.subplots(len(tables), 2, squeeze=False, sharey="row")
    for (name, runs), (over_steps, over_bytes) in zip(tables.items(), rows, strict=True):
        by_method: dict[str, list[Run]] = defaultdict(list)
        for run in runs:
            by_method[_label(run)].append(run)
        for method, own in by_method.items():
            steps, sent = own[0].setting.steps * own[0].setting.rounds, fmean(run.bytes for run in own) / 1e6
            _line(over_steps, method, own, steps, colours[method])
            _line(over_bytes, method, own, sent, colours[method])
        over_steps.set_title(name, fontsize=8, loc="left")
        over_steps.set_xlabel("local steps of a node", fontsize=8)
        over_bytes.set_xlabel("MB sent by a node", fontsize=8)
        over_steps.set_ylabel("accuracy, %", fontsize=8)
        over_bytes.legend(fontsize=7, loc="best")
    write(figure, path, "learning.not-written")


def _label(run: Run) -> str:
    one = ", rounds of one step" if run.setting.steps == 1 else ""
    return run.method + one


def _line(axes: Axes, method: str, runs: Sequence[Run], end: float, colour: str) -> None:
    if not all(run.curve for run in runs):
        axes.axhline(100 * fmean(run.accuracy for run in runs), color=colour, linestyle="--", label=method)
        return
    points = list(zip(*(run.curve for run in runs), strict=True))
    places = [end * (number + 1) / len(points) for number in range(len(points))]
    means = [100 * fmean(point) for point in points]
    spread = [100 * stdev(point) if len(point) > 1 else 0.0 for point in points]
    axes.plot(places, means, color=colour, marker=".", label=method)
    low, high = ([mean + sign * one for mean, one in zip(means, spread, strict=True)] for sign in (-1, 1))
    axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
