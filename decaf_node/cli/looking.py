"""``decaf-node status``, ``peers`` and ``rounds``: look at the daemon of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from decaf_node.cli.asking import AtOption, client_of
from decaf_node.cli.options import ConfigOption, JsonOption, RuntimeOption, StateOption
from decaf_node.cli.output import print_json, print_rich, print_text
from decaf_node.cli.words import NOTHING, clock, number, percent, seconds, short_id, size
from decaf_node.errors import DaemonUnreachable

if TYPE_CHECKING:
    from rich.table import Table

    from decaf_node.daemon.client import Client
    from decaf_node.daemon.reports import AlertReport, PeerReport, RoundReport


def status(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what this node is doing, and what is wrong.

    Example: decaf-node status
    """
    with client_of(config, state, runtime, at) as client:
        report = client.status()
        alerts = _alerts_of(client)
        known = [] if as_json else client.peers()
    if as_json:
        print_json({**asdict(report), "alerts": [asdict(alert) for alert in alerts]})
        return
    from decaf_node.cli.screen import status_screen

    print_rich(status_screen(report, known, alerts))


def _alerts_of(client: Client) -> list[AlertReport]:
    """Return what is wrong; an older daemon has no list of it, only the problem in its status."""
    try:
        return client.alerts()
    except DaemonUnreachable as error:
        if error.reason != "daemon.other-version":
            raise
        return []


def peers(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the other nodes that this one knows of.

    Example: decaf-node peers --json
    """
    with client_of(config, state, runtime, at) as client:
        known = client.peers()
    if as_json:
        print_json({"peers": [asdict(peer) for peer in known]})
    elif known:
        print_rich(peer_table(known), *(f"{peer.name}: {peer.problem}" for peer in known if peer.problem))
    else:
        print_text("No other node has been seen yet.")


def rounds(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many of the newest.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the last rounds of this node, the newest last.

    Example: decaf-node rounds --limit 5
    """
    with client_of(config, state, runtime, at) as client:
        history = client.rounds(limit=limit)[::-1]
    if as_json:
        print_json({"rounds": [asdict(row) for row in history]})
    elif history:
        print_rich(_round_table(history))
    else:
        print_text("No round is finished yet.")


def _table(first: str, *columns: str) -> Table:
    """Return an empty table of numbers, after one column of words that gives way where there is no room."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def peer_table(known: Sequence[PeerReport]) -> Table:
    """Return what ``decaf-node peers`` prints. clip: what its distance left of a neighbour's weight."""
    shared = any(peer.loss is not None for peer in known)
    loss = ["loss"] if shared else []
    table = _table("name", "node", "state", "round", *loss, "heard", "weight", "distance", "clip", "address")
    table.padding = (0, 1, 0, 0)  # one space: it fits 80 columns
    for peer in known:
        table.add_row(
            peer.name,
            short_id(peer.node),
            peer.state,
            str(peer.round),
            *([number(peer.loss)] if shared else []),
            NOTHING if peer.heard_seconds is None else seconds(peer.heard_seconds),
            number(peer.weight, 2),
            number(peer.distance),
            number(peer.clip_factor, 2),
            peer.addresses[0] if peer.addresses else NOTHING,
        )
    return table


def _round_table(history: list[RoundReport]) -> Table:
    table = _table("mixed at", "round", "loss", "accuracy", "edges", "distance", "sent", "train", "wait")
    for row in history:
        table.add_row(
            clock(row.time),
            str(row.round),
            number(row.loss),
            percent(row.evaluation_accuracy),
            str(len(row.edges)),
            number(row.consensus_distance),
            size(row.sent_bytes),
            seconds(row.train_seconds),
            seconds(row.exchange_seconds),
        )
    return table
