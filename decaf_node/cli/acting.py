"""``decaf-node pause`` and ``resume``: act on the daemon of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decaf_node.cli.asking import AtOption, client_of
from decaf_node.cli.options import ConfigOption, JsonOption, RuntimeOption, StateOption
from decaf_node.cli.output import print_json, print_text

if TYPE_CHECKING:
    pass


def pause(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop training and mixing, until `resume`.

    Example: decaf-node pause
    """
    _tell(client_of(config, state, runtime, at).pause(), as_json)


def resume(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on after `pause`.

    Example: decaf-node resume
    """
    _tell(client_of(config, state, runtime, at).resume(), as_json)


def _tell(phase: str, as_json: bool) -> None:
    if as_json:
        print_json({"phase": phase})
    else:
        print_text(f"The node is {phase} now.")
