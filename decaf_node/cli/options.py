"""Options that several commands share, and the places of a node that they lead to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from decaf_node.settings import Places

# typer reads these at run time, on Python 3.10 too, so they stay Optional
ConfigOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--config", metavar="FILE", help="Settings file (default: the user's, else /etc/decaf-node)."),
]
StateOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--state", metavar="DIR", help="State folder of the node."),
]
RuntimeOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--runtime", metavar="DIR", help="Runtime folder of the node, where its control socket lies."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def places_of(config: Path | None = None, state: Path | None = None, runtime: Path | None = None) -> Places:
    """Return the places of the node meant by these options. Raises BadSettings."""
    from decaf_node.settings import find_places  # pydantic takes its time, and --help does not need it

    return find_places(os.environ, config, state, runtime)
