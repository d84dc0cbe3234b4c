"""``decaf-node pause`` and ``resume``: act on the daemon of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decaf_node.cli.options import ConfigOption, JsonOption, RuntimeOption, StateOption, places_of
from decaf_node.cli.output import print_json, print_text

if TYPE_CHECKING:
    from pathlib import Path

    from decaf_node.daemon.client import Client


def pause(
    config: ConfigOption = None, state: StateOption = None, runtime: RuntimeOption = None, as_json: JsonOption = False
) -> None:
    """Stop training and mixing, until `resume`.

    Example: decaf-node pause
    """
    _tell(_client(config, state, runtime).pause(), as_json)


def resume(
    config: ConfigOption = None, state: StateOption = None, runtime: RuntimeOption = None, as_json: JsonOption = False
) -> None:
    """Go on after `pause`.

    Example: decaf-node resume
    """
    _tell(_client(config, state, runtime).resume(), as_json)


def _client(config: Path | None, state: Path | None, runtime: Path | None) -> Client:
    from decaf_node.daemon.client import Client

    return Client(places_of(config, state, runtime).control_socket)


def _tell(phase: str, as_json: bool) -> None:
    if as_json:
        print_json({"phase": phase})
    else:
        print_text(f"The node is {phase} now.")
