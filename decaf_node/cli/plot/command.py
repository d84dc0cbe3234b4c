"""``decaf-node plot``: a picture of what a node has done, or of who mixes with whom."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decaf_node.cli.asking import AtOption
from decaf_node.cli.options import ConfigOption, JsonOption, RuntimeOption, StateOption
from decaf_node.cli.output import print_json, print_text
from decaf_node.cli.picture import why_not
from decaf_node.errors import UsageError

def plot(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to: a PNG, SVG or PDF file.")],
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the history of this node: loss, held-out accuracy, distance to the neighbours, bytes.

    The node may run or not.

    Example: decaf-node plot rounds.png
    """
    if (reason := why_not(file)) is not None:
        raise UsageError("plot.bad-file", reason)
    from decaf_node.cli.plot.curves import draw_history
    from decaf_node.cli.plot.history import history_of

    who, history = history_of(config, state, runtime, at)
    draw_history(file, who, history)
    if as_json:
        print_json({"file": str(file.absolute()), "rounds": history.count})
    else:
        print_text(f"{history.count:,} rounds are drawn in {file}.")
