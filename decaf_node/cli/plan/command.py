"""``decaf-node plan``: what a round costs, and which settings fit model, link and device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from decaf_node.cli.asking import client_of
from decaf_node.cli.options import ConfigOption, JsonOption, RuntimeOption, StateOption, places_of
from decaf_node.cli.output import print_json, print_rich, print_text
from decaf_node.cli.plan.wish import Wish, rate_of


def plan(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    model: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--model", metavar="DIR", help="Folder of the base model (default: the settings')."),
    ] = None,
    rank: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--rank", min=1, help="Rank of the adapter (default: the settings')."),
    ] = None,
    nodes: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--nodes", min=2, max=1024, help="How many nodes (default: those of the running mesh)."),
    ] = None,
    graph: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--graph", help="Who mixes with whom, a value of mesh.topology (default: the settings')."),
    ] = None,
    link: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--link", metavar="SPEED", help="Each way, as 100Mbit or 2MB (default: as the history shows it)."),
    ] = None,
    step_seconds: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--step-seconds", min=1e-6, max=1e6, help="How long a local step takes (default: as the history shows)."
        ),
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Time a few real steps and a mix on this device.")] = False,
    skewed: Annotated[
        bool, typer.Option("--skewed", help="The nodes' data differ in kind, as other labels at each.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a round costs in bytes and time, and recommend settings.

    The size of the adapter is exact, and no weights are loaded for it. What is not given is taken from the settings and
    from the history of this node, if there is one.

    Example: decaf-node plan --model ./smollm2 --nodes 10 --link 100Mbit --step-seconds 0.5
    """
    wish = Wish(model, rank, nodes, graph, None if link is None else rate_of(link), step_seconds, measure, skewed)
    from decaf_node.cli.plan.plan import make_plan
    from decaf_node.cli.plan.screen import cost_table, document_of, settings_of

    places = places_of(config, state, runtime)
    made = make_plan(wish, places, lambda: client_of(config, state, runtime, None))
    if as_json:
        print_json(document_of(made))
        return
    print_rich(*cost_table(made))
    print_text(f"\nRecommended, the same at every node:\n\n{settings_of(made)}")
