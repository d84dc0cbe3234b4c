"""``decaf-node run``: be a node until told to stop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from decaf_node.cli.options import ConfigOption, RuntimeOption, StateOption, places_of
from decaf_node.cli.ownership import refuse_root

if TYPE_CHECKING:
    from decaf_node.places import Places


def run(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Plaintext, on this machine only: to try it out.")
    ] = False,
    log_format: Annotated[
        Optional[Literal["auto", "plain", "json"]],  # noqa: UP045
        typer.Option("--log-format", help="How log lines look."),
    ] = None,
    log_level: Annotated[
        Optional[Literal["debug", "info", "warning", "error"]],  # noqa: UP045
        typer.Option("--log-level", help="What is logged at least."),
    ] = None,
) -> None:
    """Be a node until SIGTERM or Ctrl-C.

    It trains on the data of this machine, finds its neighbours and mixes its adapter with theirs.

    Example: decaf-node run --config desk.toml --log-format json
    """
    from decaf_node.daemon.service import last_words

    with last_words():
        places = places_of(config, state, runtime)
        refuse_root(places)
        _run(places, insecure, log_format, log_level)


def _run(places: Places, insecure: bool, log_format: str | None, log_level: str | None) -> None:
    from decaf_node.settings import Settings, load_settings

    log = {key: value for key, value in (("format", log_format), ("level", log_level)) if value is not None}

    def read() -> Settings:
        settings = load_settings(places.config, os.environ)
        return settings.model_copy(update={"log": settings.log.model_copy(update=log)})

    settings = read()
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # read when grpc is imported: its own notes are for its authors
    from decaf_node.daemon.main import run as run_daemon  # only now: wrong settings are said at once

    run_daemon(settings, read, places, insecure=insecure)
