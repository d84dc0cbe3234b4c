"""The picture of a node's history: loss, accuracy, distance and traffic over the rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from decaf_node.cli.picture import BLUE, ORANGE, new_figure, write
from decaf_node.cli.plot.thinning import Thinned
from decaf_node.cli.words import day

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPARSE = 40  # points up to which each is marked
LEAST_BYTES = 10.0  # that the scale of traffic shows: where nothing was sent it would show parts of a byte

Panel = Callable[["Axes", Thinned], None]


def draw_history(path: Path, who: str, history: Thinned) -> None:
    """Write the curves that there are. Raises TryAgain ``plot.not-written``."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    panels = [panel for panel, names in PANELS if any(history.groups[name] for name in names)]
    rows = (len(panels) + 1) // 2
    columns = min(2, len(panels))
    figure = new_figure(1 + 5 * columns, 0.6 + 3.4 * rows, _title(who, history))
    places = figure.subplots(rows, columns, squeeze=False).flat
    for axes, panel in zip(places, panels, strict=False):
        panel(axes, history)
        axes.set(xlabel="round", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.grid(alpha=0.3)
    for axes in list(figure.axes)[len(panels) :]:
        axes.set_axis_off()
    write(figure, path, "plot.not-written")


def _title(who: str, history: Thinned) -> str:
    first, last = history.first, history.last
    assert first is not None, "nothing is drawn of nothing"
    assert last is not None
    each = f" ({history.each} a point; shaded: the lowest to the highest)" if history.each > 1 else ""
    return f"{who}: rounds {first.round:,} to {last.round:,}{each}, {day(first.time)} to {day(last.time)}"


def _losses(axes: Axes, history: Thinned) -> None:
    _draw(axes, history, ("loss", "training", BLUE), ("evaluation_loss", "held out", ORANGE))
    axes.set(ylabel="loss")


def _accuracy(axes: Axes, history: Thinned) -> None:
    from matplotlib.ticker import PercentFormatter

    _draw(axes, history, ("evaluation_accuracy", "", ORANGE))
    axes.set(ylabel="held-out accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _distance(axes: Axes, history: Thinned) -> None:
    _draw(axes, history, ("consensus_distance", "", BLUE))
    axes.set(ylabel="distance to the neighbours, before mixing")


def _bytes(axes: Axes, history: Thinned) -> None:
    from matplotlib.ticker import EngFormatter

    _draw(axes, history, ("sent_bytes", "sent", BLUE), ("received_bytes", "received", ORANGE))
    axes.set(ylabel="snapshots a round", ylim=(0, max(axes.get_ylim()[1], LEAST_BYTES)))
    axes.yaxis.set_major_formatter(EngFormatter("B"))


PANELS: Sequence[tuple[Panel, tuple[str, ...]]] = (
    (_losses, ("loss", "evaluation_loss")),
    (_accuracy, ("evaluation_accuracy",)),
    (_distance, ("consensus_distance",)),
    (_bytes, ("sent_bytes", "received_bytes")),
)


def _draw(axes: Axes, history: Thinned, *curves: tuple[str, str, str]) -> None:
    """Draw the mean of each group, and the range in it where there are several rounds in one.

    The first line is the widest, so that both can be seen where they are one.
    """
    there = [curve for curve in curves if history.groups[curve[0]]]
    for place, (name, label, colour) in enumerate(there):
        points = history.curve(name)
        rounds, means = [round for round, _ in points], [group.mean for _, group in points]
        marker = "." if len(points) <= SPARSE else ""
        axes.plot(rounds, means, color=colour, linewidth=2.2 - place, marker=marker, label=label)
        if history.each > 1:
            low, high = [group.low for _, group in points], [group.high for _, group in points]
            axes.fill_between(rounds, low, high, color=colour, alpha=0.2, linewidth=0)
    if len(there) > 1:
        axes.legend(fontsize=8)
