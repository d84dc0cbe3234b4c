"""Which daemon a command asks: that of this machine, or with ``--node`` one of another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from decaf_node.cli.options import places_of
from decaf_node.cli.ownership import start_command

if TYPE_CHECKING:
    from decaf_node.daemon.client import Client

AtOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--node", metavar="HOST:PORT", help="Ask the daemon of another device (monitor.listen there)."),
]


def client_of(config: Path | None, state: Path | None, runtime: Path | None, at: str | None) -> Client:
    """Return the way to the daemon meant by these options. Raises what ``remote.client_at`` does."""
    places = places_of(config, state, runtime)
    if at is None:
        from decaf_node.daemon.client import Client  # brings grpc

        return Client(places.control_socket, start=start_command(places, config, state))
    from decaf_node.daemon.remote import client_at

    return client_at(at, places)
