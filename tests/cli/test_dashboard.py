"""``decaf-node dashboard`` and real daemons: the page that the daemon serves, one served by the command, and where."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from decaf_node.cli.dashboard import tunnel
from tests.cli.command import PROGRAM, decaf_node
from tests.cli.test_operators import place_of
from tests.daemon.processes import PATIENCE, Daemon, mesh
from tests.daemon.trusted import Authority

HERE = "http://127.0.0.1:7437/"


@pytest.mark.parametrize(
    ("environ", "host"),
    [
        ({"DISPLAY": ":0"}, None),
        ({"WAYLAND_DISPLAY": "wayland-0"}, None),
        ({}, re.escape(socket.gethostname())),
        ({"SSH_CONNECTION": "10.0.0.9 50000 10.0.0.5 22"}, "10.0.0.5"),
        ({"SSH_CONNECTION": "10.0.0.9 50000 10.0.0.5 22", "DISPLAY": "localhost:10.0"}, "10.0.0.5"),
    ],
)
def test_who_sees_no_screen_of_this_machine_is_told_of_a_tunnel(environ: dict[str, str], host: str | None) -> None:
    line = tunnel(HERE, environ)
    if host is None:
        assert line is None
    else:
        assert line is not None
        assert re.fullmatch(rf"ssh -L 7437:127.0.0.1:7437 \S+@{host}", line)


def test_who_has_no_name_is_told_of_a_tunnel_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a numeric user."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)
    assert tunnel(HERE, {}) == f"ssh -L 7437:127.0.0.1:7437 {socket.gethostname()}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as trial:
        return int(trial.getsockname()[1])


def ask(address: str, path: str) -> Any:
    with closing(http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=20.0)) as connection:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())


def options(node: Daemon) -> list[Path | str]:
    return ["--state", node.state, "--runtime", node.runtime, "--config", node.config]


@contextmanager
def serving(*arguments: Path | str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command; give its process and what it prints first."""
    command = [*PROGRAM, "dashboard", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


@pytest.mark.slow
def test_the_page_of_the_daemon_is_shown_or_one_is_served_until_ctrl_c() -> None:
    with mesh() as make:
        port = free_port()
        a = make("a", monitor={"dashboard": True, "dashboard_port": port}).start()
        instance = a.until(lambda status: status.round >= 1).instance
        own = decaf_node("dashboard", *options(a), "--json")
        assert json.loads(own.stdout) == {"address": f"http://127.0.0.1:{port}/", "served_by_daemon": True}
        assert ask(json.loads(own.stdout)["address"], "/status")["instance"] == instance
        taken = decaf_node("dashboard", *options(a), "--port", str(port))
        assert (taken.returncode, taken.stdout) == (75, "")
        assert re.fullmatch(rf"decaf-node: Port {port} .* \[monitor.port-in-use\]\n", taken.stderr)
        with serving(*options(a), "--port", "0", "--no-open") as (process, said):
            found = re.fullmatch(r"The page of this node is at (http://127.0.0.1:[0-9]+/) until Ctrl-C.\n", said)
            assert found
            assert ask(found[1], "/status")["instance"] == instance
            assert ask(found[1], "/rounds?limit=1")["rounds"][0]["round"] >= 1
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE)
            assert (process.returncode, errors) == (130, "")


@pytest.mark.slow
def test_the_page_of_another_device_is_served_here() -> None:
    with mesh() as make:
        ours = Authority()
        a = make("a", authority=ours, monitor={"listen": "127.0.0.1:0"}).start()
        node = a.until(lambda status: status.round >= 1).node
        desk = make("desk", authority=None)
        ours.admit(desk.state)
        with serving(*options(desk), "--node", place_of(a), "--port", "0", "--json") as (process, _):
            assert process.stdout is not None
            address = json.loads("{" + "".join(iter(process.stdout.readline, "}\n")) + "}")["address"]
            assert ask(address, "/status")["node"] == node
            assert ask(address, "/topology")["node"] == node
            a.end()
            assert ask(address, "/status")["error"]["reason"] == "daemon.not-reached"


@pytest.mark.slow
def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    done = decaf_node("dashboard", "--runtime", tmp_path, "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["reason"]) == (69, "daemon.not-running")
