"""Operators on other devices, with real daemons and the real commands: strangers, members, operators."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from decaf_node.cli.config import find_problems
from decaf_node.daemon.node_id import printed, short
from decaf_node.daemon.remote import channel_at
from decaf_node.daemon.rpc_errors import error_of
from decaf_node.places import Places
from decaf_node.v1 import control_pb2, monitor_pb2, monitor_pb2_grpc
from tests.cli.command import decaf_node
from tests.cli.test_membership import ask_json, founded, joined
from tests.daemon.processes import Daemon, mesh
from tests.daemon.trusted import Authority

READ = (("status",), ("peers",), ("rounds",))
ACT = (("pause",), ("resume",), ("invite",), ("approve",), ("revoke", "A" * 52))


def at(node: Daemon, address: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run the command on the device of ``node``, for the daemon at ``address``."""
    return decaf_node(*command, "--node", address, "--state", node.state, "--config", node.config, "--json")


def reason(done: subprocess.CompletedProcess[str]) -> str:
    return str(json.loads(done.stdout)["error"]["reason"])


def refused_to(node: Daemon, address: str, method: str, request: bytes = b"") -> str:
    """Return why ``node`` may not call the method of the daemon at ``address``."""
    with channel_at(address, Places(node.config, node.state, node.runtime), {}) as channel:
        call: Any = channel.unary_unary(method)
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=10.0)
    error = error_of(caught.value)
    assert error is not None
    return error.reason


def place_of(node: Daemon) -> str:
    """Return where operators reach the daemon, as its log says it."""
    found = re.findall(r"Operators of other devices can connect at (\S+)\.\n", node.log())
    return str(found[-1])


def open_to_operators(node: Daemon, *operators: str) -> str:
    """Start the founder again, with a listener for operators; return where it is."""
    node.end()
    node.configure({"monitor": {"listen": "127.0.0.1:0", "operators": list(operators)}})
    node.start().until(lambda status: status.round >= 1)
    return place_of(node)


@pytest.mark.slow
def test_strangers_see_nothing_members_look_and_operators_act() -> None:
    with mesh() as make:
        a = founded(make)
        b = joined(make, "b", a)
        member = b.until(lambda status: status.round >= 1).node
        desk = make("desk", authority=None)
        operator = ask_json(desk, "join", ask_json(a, "invite")["token"])["node"]  # it never runs a daemon
        stranger = make("stranger", authority=None)
        Authority("lab").admit(stranger.state)  # of another mesh of this name
        nobody = make("nobody", authority=None)
        place = open_to_operators(a, printed(operator))

        for command in (*READ, *ACT):
            assert reason(at(stranger, place, *command)) == "daemon.not-reached"
            assert reason(at(nobody, place, *command)) == "security.no-certificate"
        for command in READ:
            assert at(b, place, *command).returncode == at(desk, place, *command).returncode == 0
        assert json.loads(at(b, place, "status").stdout)["node"] == a.status().node
        for command in ACT:
            done = at(b, place, *command)
            assert (reason(done), done.returncode) == ("monitor.not-operator", 77)

        for method in control_pb2.DESCRIPTOR.services_by_name["Control"].methods:
            assert refused_to(b, place, f"/decaf_node.v1.Control/{method.name}") == "monitor.not-operator"

        elsewhere = control_pb2.ExportRequest(folder="/tmp/adapter").SerializeToString()
        assert refused_to(desk, place, "/decaf_node.v1.Control/Export", elsewhere) == "control.from-afar"

        assert json.loads(at(desk, place, "pause").stdout) == {"phase": "paused"}
        assert a.status().phase == "paused"
        assert at(desk, place, "resume").returncode == 0
        token = json.loads(at(desk, place, "invite").stdout)["token"]
        c = make("c", authority=None)
        assert ask_json(c, "join", token)["mesh"] == "lab"
        assert json.loads(at(desk, place, "approve").stdout)["waiting"] == []
        assert at(desk, place, "revoke", short(member)).returncode == 0
        assert reason(at(b, place, "status")) == "security.revoked", "who is put out sees nothing any more"


@pytest.mark.slow
def test_without_a_certificate_nobody_gets_a_word() -> None:
    with mesh() as make:
        a = make("a", monitor={"listen": "127.0.0.1:0"}).start()
        a.until(lambda status: status.round >= 1)
        with grpc.insecure_channel(place_of(a)) as channel:
            call = monitor_pb2_grpc.MonitorStub(channel).GetStatus
            with pytest.raises(grpc.RpcError) as caught:
                call(monitor_pb2.GetStatusRequest(), timeout=3.0)
        assert caught.value.code() is not grpc.StatusCode.OK


@pytest.mark.slow
def test_there_is_no_listener_unless_it_is_asked_for() -> None:
    with mesh() as make:
        a = make("a").start()
        a.until(lambda status: status.round >= 1)
        assert "Operators of other devices" not in a.log()
        plain = make("plain", authority=None, monitor={"listen": "127.0.0.1:0"}).start("--insecure")
        assert plain.wait() == 78
        assert "[monitor.no-tls]" in plain.log()


@pytest.mark.parametrize(
    ("section", "reasons"),
    [
        ({"listen": "127.0.0.1:0", "operators": ["A" * 52]}, []),
        ({"listen": "127.0.0.1"}, ["monitor.bad-address"]),
        ({"listen": "[::1]:7435"}, []),
        ({"operators": ["desk"]}, ["monitor.bad-operator"]),
        ({"metrics": "127.0.0.1:7436"}, []),
        ({"metrics": "0.0.0.0:7436"}, ["monitor.open-metrics"]),
    ],
)
def test_config_check_looks_at_it(tmp_path: Path, section: dict[str, Any], reasons: list[str]) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text("{}")
    (tmp_path / "d.jsonl").write_text("{}\n")
    keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items())
    config = tmp_path / "c.toml"
    config.write_text(f'[model]\npath = "m"\n[data]\ntrain = ["d.jsonl"]\n[monitor]\n{keys}')
    assert [finding.reason for finding in find_problems(config)] == reasons


def test_an_address_that_is_none_is_said(tmp_path: Path) -> None:
    done = decaf_node("status", "--node", "nowhere", "--state", tmp_path, "--config", tmp_path / "none", "--json")
    assert (json.loads(done.stdout)["error"]["reason"], done.returncode) == ("usage.bad-address", 64)
