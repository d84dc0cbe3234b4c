"""``decaf-node eval``: score the node's held-out part now, or compare adapters on a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from decaf_node.cli.asking import AtOption, client_of
from decaf_node.cli.options import ConfigOption, JsonOption, RuntimeOption, StateOption, places_of
from decaf_node.cli.output import print_json, print_rich, print_text
from decaf_node.cli.words import number, percent
from decaf_node.errors import UsageError

if TYPE_CHECKING:
    from decaf_node.daemon.client import Client
    from decaf_node.places import Places


def evaluate(
    file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(
            metavar="[FILE]",
            readable=False,
            help="Compare adapters on this held-out file: JSONL, CSV or Parquet; or a folder of images.",
        ),
    ] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    alone: Annotated[
        bool,
        typer.Option(
            "--alone", help="Compare with training on this node's data alone too: a training run, which is kept."
        ),
    ] = False,
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--steps", min=1, help="Train alone no more steps than this (default: as many as the node)."),
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="List the comparisons made so far.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Score the held-out part now, with the adapter as it is; with FILE, compare base model and saved mesh adapter.

    FILE has the columns of the training data, and none of its rows. Its comparison needs no running node, and leaves a
    running one alone.

    Example: decaf-node eval test.jsonl --alone
    """
    if file is None and (alone or steps):
        raise UsageError("eval.no-file", "--alone and --steps are about a comparison; name its held-out FILE first.")
    if steps and not alone:
        raise UsageError("eval.steps-of-what", "--steps is how long --alone may train; give that too.")
    if history and file is not None:
        raise UsageError("eval.file-or-history", "--history lists what is there; leave FILE out.")
    if at is not None and (history or file is not None):
        raise UsageError("eval.only-here", "A node is compared on its own device, where its data is; leave --node out.")
    places = places_of(config, state, runtime)
    if history:
        _list(places, as_json)
    elif file is not None:
        _compare(file, places, lambda: client_of(config, state, runtime, None), alone, steps, as_json)
    else:
        _ask(client_of(config, state, runtime, at), as_json)


def _ask(client: Client, as_json: bool) -> None:
    found = client.evaluate()
    if as_json:
        print_json(asdict(found))
        return
    accuracy = "" if found.accuracy is None else f"accuracy {percent(found.accuracy)}, "
    print_text(f"{accuracy}loss {number(found.loss)} on {found.examples} held-out examples, after round {found.round}.")


def _compare(
    file: Path, places: Places, connect: Callable[[], Client], alone: bool, steps: int | None, as_json: bool
) -> None:
    from decaf_node.cli.evaluate.comparing import compare
    from decaf_node.cli.evaluate.tables import comparison_screen

    document = compare(file.absolute(), places, connect, alone, steps)
    if as_json:
        print_json(document)
    else:
        print_rich(*comparison_screen(document))


def _list(places: Places, as_json: bool) -> None:
    from decaf_node.daemon.comparisons import comparisons

    made = comparisons(places.state)
    if as_json:
        print_json({"comparisons": made})
    elif made:
        from decaf_node.cli.evaluate.tables import history_table

        print_rich(history_table(made))
    else:
        print_text("Nothing has been compared yet: decaf-node eval FILE")
