"""``decaf-node top``: a node at a glance, live, on one screen."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import typer

from decaf_node.cli.asking import AtOption, client_of
from decaf_node.cli.options import ConfigOption, RuntimeOption, StateOption
from decaf_node.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console


def top(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
) -> None:
    """Show this node live on one screen: what is wrong, its neighbours, its curves, what happens. Leave it with q.

    Of a neighbour: its round as last told, how many rounds that is behind ours, the weight of the last mix with it, its
    distance to us then, and what this left of the weight (clip).

    Example: decaf-node top
    """
    console = _terminal()
    from decaf_node.cli.top.live import show  # brings grpc

    raise typer.Exit(show(console, lambda: client_of(config, state, runtime, at)))


def _terminal() -> Console:
    """Return the terminal. Raises UsageError ``top.no-terminal``."""
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name may hold what this terminal cannot show
    console = Console(highlight=False)
    if not sys.stdout.isatty() or console.is_dumb_terminal:
        raise UsageError(
            "top.no-terminal",
            "top draws on a terminal that can move its cursor, and here is none; use `decaf-node watch` instead.",
        )
    return console
