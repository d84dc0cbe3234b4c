"""The whole history of a node, thinned to what a picture can show."""

from __future__ import annotations

from collections.abc import Callable

from decaf_node.cli.history import past_rounds
from decaf_node.cli.plot.thinning import Thinned
from decaf_node.daemon.client import Client
from decaf_node.errors import TryAgain
from decaf_node.places import Places


def history_of(connect: Callable[[], Client], places: Places) -> tuple[str, Thinned]:
    """Return whose history it is, and all of it. Raises TryAgain ``plot.no-rounds`` where it is empty."""
    history = Thinned()
    with past_rounds(connect, places) as past:
        for row in past.rounds:
            history.add(row)
    if history.last is None:
        raise TryAgain("plot.no-rounds", f"{past.who} has not finished a round yet, so there is nothing to draw.")
    return past.who, history
