"""The picture of the demo: accuracy over the rounds, and how far the nodes are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decaf_node.cli.demo.baselines import Baselines
from decaf_node.cli.demo.mesh import Node
from decaf_node.cli.demo.sight import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")  # Okabe and Ito's, told apart by colour-blind people too


def draw(path: Path, nodes: Sequence[Node], baselines: Baselines) -> None:
    """Write the curves of the nodes in the mesh, of each alone and of one place to the PNG file ``path``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mesh = {node.newsroom.name: node.record.curve for node in nodes}
    figure = Figure(figsize=(11, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_accuracy(left, mesh, baselines.alone, baselines.one_place)
    _draw_distance(right, mesh)
    figure.savefig(path, format="png")


def _draw_accuracy(
    axes: Axes, mesh: Mapping[str, Sequence[Point]], alone: Mapping[str, Sequence[Point]], one_place: Sequence[Point]
) -> None:
    for place, ((name, curve), colour) in enumerate(zip(mesh.items(), COLOURS, strict=False)):
        # in a full graph the nodes are one after each mix: the first lines are wide, so that all can be seen
        _line(axes, curve, "accuracy", color=colour, linewidth=7.5 - 2 * place, label=f"{name} in the mesh")
    _line(axes, one_place, "accuracy", color="black", linestyle="--", label="all in one place")
    for (name, curve), colour in zip(alone.items(), COLOURS, strict=False):
        _line(axes, curve, "accuracy", color=colour, linestyle=":", label=f"{name} alone")
    axes.set(xlabel="round", ylabel="accuracy on the common test set", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2, loc="lower right")


def _draw_distance(axes: Axes, mesh: Mapping[str, Sequence[Point]]) -> None:
    for (name, curve), colour in zip(mesh.items(), COLOURS, strict=False):
        _line(axes, curve, "distance", color=colour, label=name)
    axes.set(xlabel="round", ylabel="distance to the neighbours, before mixing", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _line(axes: Axes, curve: Sequence[Point], what: str, **style: Any) -> None:
    points = [(point.round, getattr(point, what)) for point in curve if getattr(point, what) is not None]
    axes.plot([number for number, _ in points], [value for _, value in points], **style)
