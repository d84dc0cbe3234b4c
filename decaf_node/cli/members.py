"""``decaf-node invite``, ``approve`` and ``revoke``: who belongs to the mesh."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from decaf_node.cli.asking import AtOption, client_of
from decaf_node.cli.options import ConfigOption, JsonOption, RuntimeOption, StateOption
from decaf_node.cli.output import print_answer, print_json, print_text
from decaf_node.errors import UsageError

if TYPE_CHECKING:
    from decaf_node.daemon.client import Client

SHORT = 8  # characters of a node ID, as `decaf-node peers` shows it
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def invite(
    ttl: Annotated[str, typer.Option("--ttl", metavar="TIME", help="How long it is valid: 90s, 30m, 12h, 7d.")] = "30m",
    uses: Annotated[int, typer.Option("--uses", min=1, max=1000, help="How many devices may use it.")] = 1,
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print an invitation: one line to paste on another device.

    Example: decaf-node invite --ttl 12h --uses 3
    """
    seconds = seconds_of(ttl)
    with client_of(config, state, runtime, at) as client:
        token = client.invite(seconds, uses)
    print_answer({"token": token, "ttl_seconds": seconds, "uses": uses}, f"decaf-node join {token}", as_json)


def approve(
    node: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[NODE]", help="Whom to let in: its node ID. None: list who waits, and let them ask."),
    ] = None,
    as_inviter: Annotated[
        bool, typer.Option("--as-inviter", help="Let it invite and approve others too; a member may be named.")
    ] = False,
    ttl: Annotated[str, typer.Option("--ttl", metavar="TIME", help="How long devices may ask from now on.")] = "30m",
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let devices in that have no invitation.

    Without a node ID it lists who waits, and lets devices ask for a while. Compare the node ID and the certificate with
    what the device shows before you let it in.

    Example: decaf-node approve --as-inviter
    """
    with client_of(config, state, runtime, at) as client:
        if node is None:
            _list(client, seconds_of(ttl), as_json)
            return
        read = _node(node)
        joined = client.approve(read, as_inviter)
    print_answer(
        {"node": read, "joined": joined, "inviter": as_inviter},
        ("It is let in." if joined else "") + (" It may invite others." if as_inviter else ""),
        as_json,
    )


def revoke(
    node: Annotated[
        str, typer.Argument(metavar="NODE", help="Whom to put out: its node ID, or the first eight characters.")
    ],
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a member out of the mesh, for ever.

    Members in reach know at once, the others when they return. Of an inviter, those that it has let in stay.

    Example: decaf-node revoke KX7Q-2MZP
    """
    with client_of(config, state, runtime, at) as client:
        read = _member(client, node)
        told = client.revoke(read)
    print_answer(
        {"node": read, "told": told},
        f"It is put out. {told} members know by now; the others hear of it when they return.",
        as_json,
    )


def seconds_of(text: str) -> float:
    """Return the seconds of ``30m`` and the like. Raises UsageError ``usage.bad-time``."""
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text.strip())
    if found is None or not int(found[1]):
        raise UsageError("usage.bad-time", f"{text!r} is no time; write it as 90s, 30m, 12h or 7d.")
    return int(found[1]) * UNITS[found[2]]


def _list(client: Client, seconds: float, as_json: bool) -> None:
    from decaf_node.daemon.node_id import printed

    report = client.waiting(seconds)
    if as_json:
        print_json(asdict(report))
        return
    print_text(f"The certificate of the mesh is {report.authority}.")
    for each in report.waiting:
        print_text(f"{each.name or 'a device'} at {each.source} waits: decaf-node approve {printed(each.node)}")
    if not report.waiting:
        print_text("Nobody waits yet. Devices may ask now: run `decaf-node join` on one, and this again.")


def _member(client: Client, typed: str) -> str:
    """Return the node ID of a member that is known here, by all of it or by its beginning. Raises UsageError."""
    beginning = re.sub(r"[\s-]", "", typed).upper()
    if len(beginning) != SHORT:
        return _node(typed)
    found = [peer.node for peer in client.peers() if peer.node.startswith(beginning)]
    if len(found) != 1:
        raise UsageError(
            "node.unknown", f"{len(found) or 'No'} members known here have an ID that begins so; give all of it."
        )
    return found[0]


def _node(typed: str) -> str:
    from decaf_node.daemon.node_id import read_node

    return read_node(typed)
