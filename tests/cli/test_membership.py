"""``init``, ``invite``, ``join``, ``approve`` and ``revoke`` as people type them, with real daemons."""

from __future__ import annotations

import json
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from decaf_node.daemon.node_id import printed, short
from decaf_node.daemon.reports import StatusReport
from tests.cli.command import PROGRAM, decaf_node
from tests.daemon.processes import Daemon, mesh, until
from tests.daemon.trusted import Authority

pytestmark = pytest.mark.slow


def ask(node: Daemon, *command: str) -> subprocess.CompletedProcess[str]:
    places = ("--state", node.state, "--config", node.config)
    runtime = () if command[0] in ("init", "join") else ("--runtime", node.runtime)
    return decaf_node(*command, *places, *runtime)


def ask_json(node: Daemon, *command: str) -> Any:
    done = ask(node, *command, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def refused(node: Daemon, reason: str, code: int, *command: str) -> str:
    done = ask(node, *command)
    assert (done.returncode, done.stderr.endswith(f"[{reason}]\n")) == (code, True), done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def founded(make: Any, name: str = "a", **settings: Any) -> Daemon:
    node: Daemon = make(name, authority=None, **settings)
    ask_json(node, "init", "--mesh", "lab")
    node.start().until(lambda status: status.round >= 1)
    return node


def joined(make: Any, name: str, at: Daemon, **settings: Any) -> Daemon:
    node: Daemon = make(name, authority=None, **settings)
    ask_json(node, "join", ask_json(at, "invite")["token"])
    return node.start()


def states(node: Daemon) -> dict[str, str]:
    with node.client() as client:
        return {peer.name: peer.state for peer in client.peers()}


def has_mixed_with(node: Daemon, other: str) -> bool:
    with node.client() as client:
        return any(peer.node == other and peer.mixes for peer in client.peers())


def is_past(round: int, status: StatusReport) -> bool:
    return status.degree == 1 and status.round > round


def test_two_commands_make_a_mesh() -> None:
    with mesh() as make:
        a = make("a", authority=None)
        done = ask(a, "init", "--mesh", "lab")
        assert done.returncode == 0, done.stderr
        assert "mesh      lab, founded" in done.stdout
        assert (a.state / "identity" / "ca-key.pem").stat().st_mode & 0o77 == 0
        refused(a, "init.already-member", 77, "init", "--mesh", "lab")
        a.start().until(lambda status: status.round >= 1)
        token = ask(a, "invite").stdout.split()[-1]
        b = make("b", authority=None)
        done = ask(b, "join", token)
        assert done.returncode == 0, done.stderr
        assert "its certificate is that of the invitation" in done.stdout
        refused(b, "join.already-member", 77, "join", token)
        b.start()  # it was told where to find a, and has no other address
        a.until(lambda status: status.mixes > 1 and not status.problem)
        b.until(lambda status: status.mixes > 1 and not status.problem)
        assert "Let in " in a.log()


def test_a_token_is_for_one_device_and_a_failed_join_leaves_nothing() -> None:
    with mesh() as make:
        a = founded(make)
        token = ask_json(a, "invite")["token"]
        again = ask_json(a, "invite")["token"]  # keeps the listener open
        b, thief = make("b", authority=None), make("thief", authority=None)
        piped = subprocess.run(
            [*PROGRAM, "join", "-", "--state", str(b.state), "--config", str(b.config)],
            input=f"{token}\n",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert piped.returncode == 0, piped.stderr
        refused(thief, "join.token-used", 77, "join", token)
        assert not thief.state.exists()
        assert "[join.token-used]" not in a.log(), "a log line is one sentence"
        assert "Did not let in a device at 127.0.0.1" in a.log()
        short = ask_json(a, "invite", "--ttl", "1s")["token"]
        time.sleep(1.1)
        refused(thief, "join.token-expired", 77, "join", short)
        refused(thief, "join.token-damaged", 64, "join", again[:-9])
        assert not thief.state.exists()
        assert ask(thief, "join", again).returncode == 0


def test_a_device_that_trains_something_else_is_told_before_its_invitation_is_used() -> None:
    with mesh() as make:
        a = founded(make, script={"task": "causal-lm"})
        until(lambda: a.status().schema != "")
        token = ask_json(a, "invite")["token"]
        b = make("b", authority=None, model={"path": "/none", "task": "sequence-classification", "labels": ["x", "y"]})
        said = refused(b, "join.other-schema", 78, "join", token)
        assert "model.task = 'causal-lm'" in said
        assert not b.state.exists()
        b.configure({})
        done = ask(b, "join", token)
        assert done.returncode == 0, done.stderr
        assert "compared when the trainer has loaded the model" in done.stdout


def test_settings_are_written_where_there_are_none(tmp_path: Path) -> None:
    with mesh() as make:
        a = founded(make)
        token = ask_json(a, "invite")["token"]
        places = ("--config", tmp_path / "c" / "config.toml", "--state", tmp_path / "state")
        done = decaf_node("join", token, *places)
        assert done.returncode == 64
        assert "[settings.model-and-data]" in done.stderr
        other = tmp_path / "other.toml"
        other.write_text('[mesh]\nname = "elsewhere"\n[model]\npath = "m"\n[data]\ntrain = ["d"]\n')
        assert "[settings.other-mesh]" in decaf_node("join", token, "--config", other, "--state", tmp_path / "s").stderr
        done = decaf_node("join", token, *places, "--model", tmp_path, "--data", tmp_path / "x.jsonl", "--name", "desk")
        assert done.returncode == 0, done.stderr
        text = (tmp_path / "c" / "config.toml").read_text()
        assert 'name = "lab"' in text
        assert f'path = "{tmp_path}"' in text
        assert 'name = "desk"' in text


def test_nobody_there_is_told_layer_by_layer() -> None:
    with mesh() as make:
        a = founded(make)
        token = ask_json(a, "invite")["token"]
        a.end()
        b = make("b", authority=None)
        b.configure({"discovery": {"mdns": True, "interfaces": ["127.0.0.1"]}})
        assert "expects nobody" in refused(b, "join.not-open", 75, "join", token)
        assert not b.state.exists()


def test_a_device_without_an_invitation_waits_for_approval() -> None:
    with mesh() as make:
        discovery = {"mdns": True, "interfaces": ["127.0.0.1"]}
        a = founded(make, discovery=discovery)
        b = make("b", authority=None, discovery=discovery)
        refused(b, "join.none-found", 75, "join")
        shown = ask_json(a, "approve")
        assert shown["waiting"] == []
        refused(b, "join.no-authority", 64, "join")
        refused(b, "join.bad-authority", 64, "join", "--authority", shown["authority"][:-1])
        refused(b, "join.other-mesh", 77, "join", "--authority", "0" * 64)
        assert ask_json(a, "approve")["waiting"] == [], "nothing was asked before the mesh was recognised"
        authority = ("--authority", shown["authority"])
        joining = subprocess.Popen(
            [*PROGRAM, "join", "--mesh", "lab", *authority, "--state", str(b.state), "--config", str(b.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: ask_json(a, "approve")["waiting"] != [])
        (applicant,) = ask_json(a, "approve")["waiting"]
        refused(a, "node.mistyped", 64, "approve", printed(applicant["node"])[:-2])
        refused(a, "approve.not-waiting", 77, "approve", "A" * 52)
        assert ask_json(a, "approve", printed(applicant["node"]))["joined"]
        out, errors = joining.communicate(timeout=60)
        assert joining.returncode == 0, errors
        assert shown["authority"] in out
        assert printed(applicant["node"]) in out
        b.start().until(lambda status: status.mixes > 0)


def test_a_revoked_member_is_out_at_once_and_for_ever() -> None:
    with mesh() as make:
        a = founded(make)
        b, c = joined(make, "b", a), joined(make, "c", a)
        status = b.until(lambda status: status.degree == 2 and status.mixes > 1)
        c.until(lambda status: status.degree == 2)
        for node in (a, c):
            until(partial(has_mixed_with, node, status.node))
        refused(b, "security.no-inviter", 77, "revoke", printed(status.node))
        refused(a, "node.unknown", 64, "revoke", "AAAA-AAAA")
        assert printed(status.node) in ask(b, "status").stdout
        assert ask_json(a, "revoke", short(status.node))["told"] >= 1
        rounds = {node: node.status().round for node in (a, c)}
        for node in (a, c):
            node.until(partial(is_past, rounds[node] + 3))
            assert states(node)["b"] == "gone"
            with node.client() as client:
                history = client.rounds(limit=1000)
            late = [row.round for row in history if status.node in {edge.node for edge in row.edges}]
            assert max(late) <= rounds[node] + 1
        b.until(lambda status: "This node is no member any more" in status.problem)
        c.end()
        c.start().until(lambda status: status.degree == 1)  # nothing is forgotten, and the key never comes back
        token = ask_json(a, "invite")["token"]
        (b.state / "identity" / "certificate.pem").unlink()
        assert "cannot be used any more" in refused(b, "security.revoked", 77, "join", token)


def test_an_inviter_lets_others_in_until_it_is_revoked() -> None:
    with mesh() as make:
        a = founded(make)
        b = joined(make, "b", a)
        inviter = b.until(lambda status: status.mixes > 0).node
        refused(b, "security.no-inviter", 77, "invite")
        assert not ask_json(a, "approve", "--as-inviter", inviter)["joined"]
        b.says("may invite others now")
        c = joined(make, "c", b)
        c.until(lambda status: status.degree == 2 and status.mixes > 0)
        a.until(lambda status: status.degree == 2)
        late = make("d", authority=None)
        token = ask_json(b, "invite", "--uses", "2")["token"]
        ask_json(a, "revoke", inviter)
        a.until(lambda status: status.degree == 1)
        mixes = c.status().mixes
        c.until(lambda status: status.degree == 1 and status.mixes > mixes + 2)
        assert states(a) == {"b": "gone", "c": "alive"}
        if ask(late, "join", token).returncode == 0:  # b does not know yet, or does not care
            late.start()
            late.says("who has let it in was revoked")
            assert "d" not in {name for name, state in states(a).items() if state == "alive"}


def test_a_member_of_another_mesh_cannot_invite_here() -> None:
    with mesh() as make:
        a = make("a", authority=Authority("lab")).start()  # its authority's key is elsewhere
        a.until(lambda status: status.round >= 1)
        for command in (("invite",), ("approve",), ("approve", "A" * 52), ("revoke", "A" * 52)):
            refused(a, "security.no-inviter", 77, *command)
        plain = make("plain", authority=None, security={"insecure": True}).start()
        plain.until(lambda status: status.round >= 1)
        refused(plain, "security.no-authority", 77, "invite")
