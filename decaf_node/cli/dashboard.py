"""``decaf-node dashboard``: the web page of a running daemon, its own or one served here until Ctrl-C."""

from __future__ import annotations

import getpass
import http.client
import json
import os
import socket
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from decaf_node.cli.asking import AtOption, client_of
from decaf_node.cli.options import ConfigOption, RuntimeOption, StateOption, places_of
from decaf_node.cli.output import print_json, print_text
from decaf_node.errors import DecafError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decaf_node.daemon.client import Client

PROBE_SECONDS = 3.0

WhereOption = Annotated[bool, typer.Option("--json", help="Print where the page is as one JSON document.")]


def dashboard(
    config: ConfigOption = None,
    state: StateOption = None,
    runtime: RuntimeOption = None,
    at: AtOption = None,
    port: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--port", min=0, max=65535, help="Port to serve the page at (default: 7437; 0 takes a free one)."),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
    as_json: WhereOption = False,
) -> None:
    """Show a web page of this node: the mesh, curves, rounds, alerts.

    Where the daemon serves it (monitor.dashboard), its address is printed; else it is served here until Ctrl-C, on this
    machine only.

    Example: decaf-node dashboard --no-open
    """
    with client_of(config, state, runtime, at) as client:
        instance = client.status().instance
        asked_here = at is None and port is None
        own = _served_by_daemon(places_of(config, state, runtime).config, instance) if asked_here else None
        if own is not None:
            _show(own, True, no_open, as_json)
        else:
            _serve(client, port, no_open, as_json)


def _serve(client: Client, port: int | None, no_open: bool, as_json: bool) -> None:
    from decaf_node.daemon.dashboard import DashboardServer
    from decaf_node.settings import MonitorSection

    server = DashboardServer(MonitorSection().dashboard_port if port is None else port, client, "--port")
    try:
        _show(server.address, False, no_open, as_json)
        threading.Event().wait()
    finally:
        server.shutdown()
        server.server_close()


def _served_by_daemon(config: Path, instance: str) -> str | None:
    """Return where the daemon of this instance serves its page itself, as the settings say; None if it does not."""
    from decaf_node.settings import load_settings

    try:
        monitor = load_settings(config, os.environ).monitor
    except DecafError:  # a daemon runs with other settings than are there now
        return None
    if not monitor.dashboard or _instance_at(monitor.dashboard_port) != instance:
        return None
    return f"http://127.0.0.1:{monitor.dashboard_port}/"


def _instance_at(port: int) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/status")
        status = json.loads(connection.getresponse().read())
        return str(status.get("instance")) if isinstance(status, dict) else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _show(address: str, by_daemon: bool, no_open: bool, as_json: bool) -> None:
    """Say where the page is, and open it where somebody looks at a screen of this machine."""
    if as_json:
        print_json({"address": address, "served_by_daemon": by_daemon})
        return
    print_text(f"The page of this node is at {address}" + ("" if by_daemon else " until Ctrl-C."))
    if (line := tunnel(address, os.environ)) is not None:
        print_text(f"From your own machine: {line}")
    elif not no_open:
        webbrowser.open(address)


def tunnel(address: str, environ: Mapping[str, str]) -> str | None:
    """Return what to type on one's own machine to see the page; None where this one has a screen."""
    screen = environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")
    session = environ.get("SSH_CONNECTION", "").split()
    if screen and not session:
        return None
    here = session[2] if len(session) == 4 else socket.gethostname()
    port = address.rstrip("/").rpartition(":")[2]
    return f"ssh -L {port}:127.0.0.1:{port} {_user()}{here}"


def _user() -> str:
    """Return who we are, as ssh takes it; empty where that has no name, as in a container."""
    try:
        return f"{getpass.getuser()}@"
    except (KeyError, OSError):  # the latter from Python 3.13 on
        return ""
