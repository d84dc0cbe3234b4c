"""``decaf-node plot``: a picture of what a node has done, or of who mixes with whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decaf_node.cli.asking import AtOption, client_of
from decaf_node.cli.options import ConfigOption, JsonOption, RuntimeOption, StateOption, places_of
from decaf_node.cli.output import print_answer
from decaf_node.cli.picture import why_not
from decaf_node.cli.words import count
from decaf_node.errors import UsageError

if TYPE_CHECKING:
    from decaf_node.daemon.client import Client
    from decaf_node.places import Places

Drawn = tuple[dict[str, int], str]  # for programs, and for people


def plot(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to: a PNG, SVG or PDF file.")],
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    graph: Annotated[
        bool, typer.Option("--graph", help="Draw who mixes with whom instead, as this node sees it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw the history of this node: loss, held-out accuracy, distance to the neighbours, bytes.

    The node may run or not; for --graph it must.

    Example: decaf-node plot rounds.png
    """
    if (reason := why_not(file)) is not None:
        raise UsageError("plot.bad-file", reason)
    draw = _graph if graph else _history
    document, sentence = draw(file, lambda: client_of(config, state, runtime, at), places_of(config, state, runtime))
    print_answer({"file": str(file.absolute()), **document}, sentence, as_json)


def _history(file: Path, connect: Callable[[], Client], places: Places) -> Drawn:
    from decaf_node.cli.plot.curves import draw_history
    from decaf_node.cli.plot.history import history_of

    who, history = history_of(connect, places)
    draw_history(file, who, history)
    return {"rounds": history.count}, f"{count(history.count, 'round')}: see {file}."


def _graph(file: Path, connect: Callable[[], Client], places: Places) -> Drawn:
    from decaf_node.cli.plot.graph import draw_graph

    with connect() as client:
        mesh, topology = client.status().mesh, client.topology()
    draw_graph(file, mesh, topology)
    members, links = len(topology.members), topology.link_count
    return {"members": members, "links": links}, f"{count(members, 'member')}, {count(links, 'link')}: see {file}."
