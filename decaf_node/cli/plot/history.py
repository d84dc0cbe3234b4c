"""The whole history of a node: asked of its daemon, or read from its state folder where none runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from decaf_node.cli.plot.thinning import Thinned
from decaf_node.cli.words import short_id
from decaf_node.daemon.client import Client
from decaf_node.daemon.database import Database
from decaf_node.daemon.reports import RoundReport
from decaf_node.daemon.store import DATABASE
from decaf_node.errors import DaemonUnreachable, TryAgain
from decaf_node.settings import Places

PAGE = 1000

Page = Callable[[int, int], list[RoundReport]]  # rounds before one, and at most so many


def history_of(connect: Callable[[], Client], places: Places) -> tuple[str, Thinned]:
    """Return whose history it is, and all of it. Raises TryAgain ``plot.no-rounds`` where it is empty."""
    try:
        with connect() as client:
            who, history = _asked(client)
    except DaemonUnreachable as error:
        if error.reason != "daemon.not-running" or not (places.state / DATABASE).is_file():
            raise
        who, history = _stored(places.state / DATABASE)
    if history.last is None:
        raise TryAgain("plot.no-rounds", f"{who} has not finished a round yet, so there is nothing to draw.")
    return who, history


def _asked(client: Client) -> tuple[str, Thinned]:
    status = client.status()
    return f"{status.name} in mesh {status.mesh}", _thinned(client.rounds)


def _stored(file: Path) -> tuple[str, Thinned]:
    with closing(Database(file, read_only=True)) as database:
        who = f"Node {short_id(database.about('node') or '')} in mesh {database.about('mesh')}"
        return who, _thinned(database.rounds)


def _thinned(page: Page) -> Thinned:
    history = Thinned()
    for row in _all(page):
        history.add(row)
    return history


def _all(page: Page) -> Iterator[RoundReport]:
    """Yield all rounds, the newest first; before 0 is from the newest."""
    before = 0
    while rows := page(before, PAGE):
        yield from rows
        before = rows[-1].round
        if before == 0:
            return
