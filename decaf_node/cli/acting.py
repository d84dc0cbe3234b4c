"""``decaf-node pause``, ``resume``, ``mix``, ``reload``, ``log-level`` and ``leave``: act on a daemon."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from decaf_node.cli.asking import AtOption, client_of
from decaf_node.cli.options import ConfigOption, JsonOption, RuntimeOption, StateOption
from decaf_node.cli.output import print_answer, print_json, print_text


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
    phase = client_of(config, state, runtime, at).pause()
    print_answer({"phase": phase}, f"The node is {phase} now.", as_json)


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
    answer = client_of(config, state, runtime, at).resume()
    stays = f"The node stays paused: {answer.why_paused}."
    print_answer(asdict(answer), stays if answer.why_paused else f"The node is {answer.phase} now.", as_json)


def mix(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """End the local steps of this round now, and mix.

    Example: decaf-node mix
    """
    round = client_of(config, state, runtime, at).mix_now()
    print_answer({"round": round}, f"The local steps of round {round} end now, and it is mixed next.", as_json)


def reload(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read settings and certificates again, and say which settings need a restart.

    Example: decaf-node reload
    """
    answer = client_of(config, state, runtime, at).reload()
    print_answer({**asdict(answer), "sentence": answer.sentence}, answer.sentence, as_json)


def log_level(
    level: Annotated[Literal["debug", "info", "warning", "error"], typer.Argument(help="What is logged at least.")],
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Log more or less, until the daemon ends or another log.level is read from the settings.

    Example: decaf-node log-level debug
    """
    before = client_of(config, state, runtime, at).set_log_level(level)
    print_answer({"before": before}, f"The log level is {level} now, and was {before}.", as_json)


def leave(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Save, say goodbye to the mesh, and end the daemon. It is a member still when it is started again.

    Example: decaf-node leave
    """
    answer = client_of(config, state, runtime, at).leave()
    if as_json:
        print_json(asdict(answer))
        return
    saved = f"round {answer.saved_round} is saved" if answer.saved_round else "no round is saved yet"
    members = "1 member was told" if answer.told == 1 else f"{answer.told} members were told"
    print_text(f"The node has left the mesh: {members}, and {saved}. Its daemon ends.")
