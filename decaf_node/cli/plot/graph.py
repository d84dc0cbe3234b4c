"""The picture of the mesh: its nodes on a circle, and who mixes with whom, with what weight."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from decaf_node.cli.picture import BLUE, GREY, ORANGE, around_a_circle, circle, draw_names, new_figure, write
from decaf_node.cli.words import count, number, short_id

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from decaf_node.daemon.reports import LinkReport, TopologyReport

Place = tuple[float, float]

NAMED = 64  # nodes whose names can be told apart
WEIGHED = 24  # own links whose weights can be read
NAME_LENGTH = 16
COLOURS = {"alive": BLUE, "late": ORANGE, "gone": GREY}
THIN, THICK = 0.8, 6.0  # lines of links: of others, and of weight 1


def draw_graph(path: Path, mesh: str, topology: TopologyReport) -> None:
    """Write the graph as the node sees it. Raises TryAgain ``plot.not-written``."""
    figure = new_figure(8.5, 8.5, _title(mesh, topology))
    axes = figure.subplots()
    places = circle(len(topology.members))
    of = dict(zip((member.node for member in topology.members), places, strict=True))
    for link in topology.links:
        _draw_link(axes, link, topology.node, of[link.one], of[link.other])
    if sum(link.weight is not None for link in topology.links) <= WEIGHED:
        _write_weights(axes, topology, of)
    _draw_nodes(axes, topology, of)
    if len(topology.members) <= NAMED:
        draw_names(axes, [_name(member.name or short_id(member.node)) for member in topology.members], places)
    around_a_circle(axes)
    axes.legend(fontsize=8, loc="lower left", frameon=False)
    write(figure, path, "plot.not-written")


def _draw_link(axes: Axes, link: LinkReport, own: str, one: Place, other: Place) -> None:
    """Draw what is mixed in this turn as a line, else dotted; our own links as wide as their weight."""
    ours = own in (link.one, link.other)
    axes.plot(
        *zip(one, other, strict=True),
        color=BLUE if ours else GREY,
        linewidth=max(THIN, THICK * (link.weight or 0.0)),
        linestyle="-" if link.current else ":",
        alpha=0.8 if ours else 0.5,
        zorder=1,
    )


def _write_weights(axes: Axes, topology: TopologyReport, of: Mapping[str, Place]) -> None:
    """Write the weight of each of our links on it, nearer to the neighbour, where links are apart."""
    for link in topology.links:
        if link.weight is not None:
            far = link.other if link.one == topology.node else link.one
            (x0, y0), (x1, y1) = of[topology.node], of[far]
            place = 0.35 * x0 + 0.65 * x1, 0.35 * y0 + 0.65 * y1
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8}
            axes.text(*place, number(link.weight, 2), ha="center", va="center", fontsize=8, bbox=box, zorder=2)


def _draw_nodes(axes: Axes, topology: TopologyReport, of: Mapping[str, Place]) -> None:
    size = 80 if len(topology.members) <= NAMED else 20
    for state, colour in COLOURS.items():
        if places := [of[member.node] for member in topology.members if member.state == state]:
            across, up = zip(*places, strict=True)
            axes.scatter(across, up, s=size, color=colour, edgecolor="white", zorder=3, label=state)
    x, y = of[topology.node]
    axes.scatter(x, y, s=3 * size, facecolor="none", edgecolor=BLUE, linewidth=1.5, zorder=3, label="this node")


def _title(mesh: str, topology: TopologyReport) -> str:
    """Say what is seen; mesh.topology too where that leaves the graph to the number of members."""
    chosen = f" ({topology.topology})" if topology.topology != topology.graph else ""
    drawn = len(topology.links)
    links = count(topology.link_count, "link") + (f", {drawn:,} of them drawn" if drawn < topology.link_count else "")
    turns = f", {topology.turns} turns" if topology.turns > 1 else ""
    return f"mesh {mesh}: {topology.graph}{chosen}, {count(len(topology.members), 'member')}, {links}{turns}"


def _name(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
