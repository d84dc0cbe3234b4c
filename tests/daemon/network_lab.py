"""Hosts on one machine, each in a network namespace of its own, and what happens between them. Ends with ``done``.

Run as root, in a namespace that holds all the others, so that nothing leaves it and nothing is left behind:
``unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private python -m ... SCENARIO``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from decaf_node.daemon.join_token import read_token
from tests.cli.command import PROGRAM
from tests.daemon.processes import ROOT, Daemon, mesh
from tests.daemon.trusted import Authority

ALONE = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
PORT, ENROLMENT_PORT = 7433, 7434
DISCOVERY = {"mdns": False}


def run(*words: str) -> None:
    subprocess.run(words, check=True)


def build(*hosts: str) -> None:
    """Make a switch, and the hosts on it: 10.77.0.1 and on, in this order."""
    run("mount", "-t", "tmpfs", "none", "/run")
    Path("/run/netns").mkdir()
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "switch", "type", "bridge", "stp_state", "0", "forward_delay", "0")
    run("ip", "link", "set", "switch", "up")
    for number, host in enumerate(hosts, 1):
        run("ip", "netns", "add", host)
        run("ip", "link", "add", f"to-{host}", "type", "veth", "peer", "name", "eth0", "netns", host)
        run("ip", "link", "set", f"to-{host}", "master", "switch", "up")
        run("ip", "-n", host, "link", "set", "lo", "up")
        run("ip", "-n", host, "link", "set", "eth0", "up")
        run("ip", "-n", host, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")


def within(host: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", host)


def takes_over(impostor: str, host: str, address: str) -> None:
    """From now on the impostor has the host's address, and the host is cut off."""
    run("ip", "link", "set", f"to-{host}", "down")
    run("ip", "-n", impostor, "address", "add", f"{address}/24", "dev", "eth0")
    run("ip", "-n", impostor, "neighbour", "flush", "all")
    _forget_neighbours()


def gives_back(impostor: str, host: str, address: str) -> None:
    """The host is back, and the impostor has its own address again."""
    run("ip", "-n", impostor, "address", "del", f"{address}/24", "dev", "eth0")
    run("ip", "link", "set", f"to-{host}", "up")
    _forget_neighbours()


def _forget_neighbours() -> None:
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        subprocess.run(["ip", "-n", line.split()[0], "neighbour", "flush", "all"], check=True)


def made(make: Callable[..., Daemon], host: str, number: int, *peers: str, **settings: Any) -> Daemon:
    """Make a daemon on the host."""
    node = make(
        host,
        listen={"address": f"10.77.0.{number}", "port": PORT, "enrolment_port": ENROLMENT_PORT},
        discovery=DISCOVERY,
        mesh={"name": "lab", "peers": list(peers)},
        **settings,
    )
    node.within = within(host)
    return node


def command(node: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command on the node's host."""
    places = ["--state", str(node.state), "--config", str(node.config)]
    runtime = [] if words[0] in ("init", "join") else ["--runtime", str(node.runtime)]
    program = [*node.within, *PROGRAM, *words, *places, *runtime, "--json"]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, cwd=ROOT)


def in_the_middle() -> None:
    """Whoever takes a member's address over, with an authority of his own, is neither joined nor mixed with."""
    build("a", "b", "c", "m")
    with mesh() as make:
        a = made(make, "a", 1, authority=None)
        assert command(a, "init", "--mesh", "lab").returncode == 0
        a.start().until(lambda status: status.round >= 1)
        token = json.loads(command(a, "invite").stdout)["token"]
        assert read_token(token).addresses == (f"10.77.0.1:{ENROLMENT_PORT}",)
        mallory = made(make, "m", 1, authority=None)
        assert command(mallory, "init", "--mesh", "lab").returncode == 0

        b = made(make, "b", 2, authority=None)
        assert command(b, "join", token).returncode == 0
        b.start().until(lambda status: status.mixes > 0)

        spare = json.loads(command(a, "invite").stdout)["token"]
        takes_over("m", "a", "10.77.0.1")
        mallory.start().until(lambda status: status.round >= 1)
        assert json.loads(command(mallory, "invite").stdout)["token"], "his listener for those who join is open too"
        c = made(make, "c", 3, authority=None)
        refused = json.loads(command(c, "join", spare).stdout)
        assert refused["error"]["reason"] == "join.other-mesh", refused
        assert not c.state.exists()
        assert "join.token" not in mallory.log(), "he never saw the secret"
        b.until(lambda status: status.degree == 0)
        b.says("is no good here")
        assert mallory.status().mixes == 0
        assert mallory.client().peers() == []

        mallory.end()
        gives_back("m", "a", "10.77.0.1")
        mixes = b.status().mixes
        b.until(lambda status: status.mixes > mixes, patience=90.0)
        assert command(c, "join", spare).returncode == 0


def a_stolen_token() -> None:
    """A token is used by one device; whoever has copied it gets nothing, from another host either."""
    build("a", "b", "m")
    with mesh() as make:
        a = made(make, "a", 1, authority=None)
        assert command(a, "init", "--mesh", "lab").returncode == 0
        a.start().until(lambda status: status.round >= 1)
        token = json.loads(command(a, "invite").stdout)["token"]
        assert json.loads(command(a, "invite").stdout)["token"], "the listener stays open"
        b, thief = made(make, "b", 2, authority=None), made(make, "m", 3, authority=None)
        assert command(b, "join", token).returncode == 0
        refused = json.loads(command(thief, "join", token).stdout)
        assert refused["error"]["reason"] == "join.token-used", refused
        assert not thief.state.exists()
        assert "at 10.77.0.3" in a.log(), "the founder is told from where"
        member = b.start().until(lambda status: status.mixes > 0).node
        assert json.loads(command(a, "revoke", member).stdout)["told"] >= 0
        b.until(lambda status: "no member any more" in status.problem)
        (b.state / "identity" / "certificate.pem").unlink()
        again = json.loads(command(b, "join", token).stdout)
        assert again["error"]["reason"] == "security.revoked", again


def an_expired_certificate() -> None:
    """A member whose clock is two days ahead takes nobody's word whose certificate has expired by then."""
    build("a", "b")
    lab = Authority()
    with mesh() as make:
        a, b = made(make, "a", 1, authority=lab), made(make, "b", 2, "10.77.0.1:7433", authority=lab)
        lab.admit(a.state, lifetime=86400.0)
        lab.admit(b.state, lifetime=30 * 86400.0)
        b.environ = {
            "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))),
            "FAKETIME": "+2d",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        a.start().until(lambda status: status.round >= 1)
        b.start()
        b.says("certificate has expired")
        rounds = b.until(lambda status: status.round >= 1).round
        b.until(lambda status: status.round > rounds + 3)
        assert b.status().mixes == a.status().mixes == 0
        a.end()
        a.environ = b.environ
        a.start()
        assert a.wait() == 77
        assert "[certificate.expired]" in a.log()


SCENARIOS = {each.__name__: each for each in (in_the_middle, a_stolen_token, an_expired_certificate)}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]]()
    print("done")
