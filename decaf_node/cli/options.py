"""Options that several commands share, and the places of a node that they lead to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from decaf_node.places import Places, find_places

# typer reads these at run time, on Python 3.10 too, so they stay Optional. Whether a path can be read is not for it to
# say: what is wrong with settings or folders has reasons and exit codes of its own.
ConfigOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--config", readable=False, metavar="FILE", help="Settings file (default: the user's, else /etc/decaf-node)."
    ),
]
StateOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--state", readable=False, metavar="DIR", help="State folder of the node."),
]
RuntimeOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--runtime", readable=False, metavar="DIR", help="Runtime folder of the node, where its control socket lies."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def places_of(config: Path | None = None, state: Path | None = None, runtime: Path | None = None) -> Places:
    """Return the places of the node meant by these options. Raises BadSettings."""
    return find_places(os.environ, config, state, runtime)
