"""``decaf-node watch``: what happens at a node, a line an event, as it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decaf_node.cli.asking import AtOption, client_of
from decaf_node.cli.options import ConfigOption, RuntimeOption, StateOption
from decaf_node.cli.output import print_text
from decaf_node.cli.words import clock, number, short_id
from decaf_node.daemon.documents import event_document, event_kind, json_line

if TYPE_CHECKING:
    from decaf_node.daemon.reports import EventReport, PeerReport, ProblemReport, StateReport

LinesOption = Annotated[bool, typer.Option("--json", help="Print one JSON document a line instead of text.")]


def watch(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    as_json: LinesOption = False,
) -> None:
    """Show what happens at this node, a line an event, until Ctrl-C: the state first, then each change.

    Example: decaf-node watch --json
    """
    with client_of(config, state, runtime, at) as client:
        for event in client.watch():
            line = json_line(event_document(event)) if as_json else line_of(event)
            if line:
                print_text(line)


def line_of(event: EventReport, title: Callable[[str], str] = short_id) -> str:
    """Return a line for a person; empty for a heartbeat. title: what to call a node."""
    from decaf_node.daemon.lines import round_line

    what: Any = event.what
    match event_kind(event):
        case "state":
            said = _state(what)
        case "round":
            said = round_line(what, title)
        case "phase":
            said = f"round {what.round}: {what.phase}"
        case "peer":
            said = _peer(what)
        case "problem":
            said = _problem(what)
        case "gap":
            said = f"{what.missed} events came too fast to be told; the state follows"
        case _:
            return ""
    return f"{clock(event.time)}  {said}"


def _state(state: StateReport) -> str:
    status = state.status
    here = sum(peer.state == "alive" for peer in state.peers)
    wrong = "".join(f"\n          wrong: {problem.sentence}" for problem in state.problems)
    return f"{status.name} of the mesh {status.mesh!r}: round {status.round}, {status.phase}, {here} others here{wrong}"


def _peer(peer: PeerReport) -> str:
    parts = [f"{peer.name or peer.node} is {peer.state}"]
    if peer.neighbour:
        parts.append("a neighbour")
    if peer.weight is not None:
        parts.append(f"{peer.mixes} mixes, weight {number(peer.weight, 2)}")
    if peer.clip_factor is not None and peer.clip_factor < 1:
        parts.append(f"clip {number(peer.clip_factor, 2)}")
    return ", ".join(parts)


def _problem(problem: ProblemReport) -> str:
    return f"wrong: {problem.sentence}" if problem.sentence else f"over: {problem.place}"
