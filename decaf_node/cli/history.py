"""The whole history of a node: asked of its daemon, or read from its state folder where none runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from decaf_node.cli.words import short_id
from decaf_node.daemon.client import Client
from decaf_node.daemon.database import Database
from decaf_node.daemon.reports import RoundReport
from decaf_node.daemon.store import DATABASE
from decaf_node.errors import DaemonUnreachable
from decaf_node.places import Places

PAGE = 1000


@dataclass(frozen=True)
class Past:
    """who: for a person. rounds: the newest first. client: to the daemon, where one runs."""

    who: str
    rounds: Iterator[RoundReport]
    client: Client | None = None


@contextmanager
def past_rounds(connect: Callable[[], Client], places: Places) -> Iterator[Past]:
    """Give the history. Raises what the client or ``Database`` does: DaemonUnreachable too where there is none."""
    with ExitStack() as stack:
        try:
            client = stack.enter_context(connect())
            status = client.status()
            past = Past(f"{status.name} in mesh {status.mesh}", _all(client.rounds), client)
        except DaemonUnreachable as error:
            if error.reason != "daemon.not-running" or not (places.state / DATABASE).is_file():
                raise
            database = stack.enter_context(closing(Database(places.state / DATABASE, read_only=True)))
            who = f"Node {short_id(database.about('node') or '')} in mesh {database.about('mesh')}"
            past = Past(who, _all(database.rounds))
        yield past


def _all(page: Callable[[int, int], list[RoundReport]]) -> Iterator[RoundReport]:
    """Yield all rounds, the newest first; before 0 is from the newest."""
    before = 0
    while rows := page(before, PAGE):
        yield from rows
        before = rows[-1].round
        if before == 0:
            return
