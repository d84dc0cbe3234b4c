"""``decaf-node watch`` and real daemons: lines for people and for programs, its end, and from another device."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from decaf_node.cli.watching import line_of
from decaf_node.daemon.remote import channel_at
from decaf_node.daemon.reports import EventReport, GapReport, HeartbeatReport, PhaseReport, ProblemReport
from decaf_node.places import find_places
from tests.cli.command import PROGRAM, decaf_node
from tests.cli.test_membership import ask_json, founded, joined
from tests.cli.test_operators import open_to_operators
from tests.daemon.processes import PATIENCE, Daemon, mesh


@contextmanager
def watching(node: Daemon, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``decaf-node watch`` on the device of ``node``."""
    places = ("--state", node.state, "--runtime", node.runtime, "--config", node.config)
    command = [*PROGRAM, "watch", *map(str, places), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.slow
def test_each_event_is_a_line_of_json_and_ctrl_c_ends_it() -> None:
    with mesh() as make:
        a = make("a").start()
        node = a.until(lambda status: status.round >= 1).node
        with watching(a, "--json") as process:
            first = json.loads(line(process))
            assert (first["event"], first["state"]["status"]["node"]) == ("state", node)
            second = json.loads(line(process))
            assert second["sequence"] == first["sequence"] + 1
            assert second["event"] in second
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE)
            assert (process.returncode, errors) == (130, "")


@pytest.mark.slow
def test_lines_for_people_and_one_sentence_when_the_daemon_has_gone() -> None:
    with mesh() as make:
        a = make("a").start()
        a.until(lambda status: status.round >= 1)
        with watching(a) as process:
            assert " a of the mesh 'lab': round " in line(process)
            a.signal(signal.SIGTERM)
            said, errors = process.communicate(timeout=PATIENCE)
            assert "\x1b" not in said
            assert process.returncode == 69
            assert errors.count("\n") == 1
            assert "[daemon.not-running]" in errors


def test_where_no_daemon_is_it_says_so(tmp_path: Path) -> None:
    done = decaf_node("watch", "--runtime", tmp_path)
    assert (done.returncode, done.stdout) == (69, "")
    assert "[daemon.not-running]" in done.stderr


@pytest.mark.slow
def test_a_member_watches_from_another_device_until_it_is_put_out() -> None:
    with mesh() as make:
        a = founded(make)
        b = joined(make, "b", a)
        member = b.until(lambda status: status.round >= 1).node
        place = open_to_operators(a)
        with channel_at(place, find_places({}, b.config, b.state, b.runtime), {}) as channel:
            asked = health_pb2.HealthCheckRequest(service="decaf_node.v1.Mesh")
            said = health_pb2_grpc.HealthStub(channel).Watch(asked, timeout=4 * PATIENCE)
            assert next(said).status in (
                health_pb2.HealthCheckResponse.SERVING,
                health_pb2.HealthCheckResponse.NOT_SERVING,
            )
            with watching(b, "--node", place, "--json") as process:
                first = json.loads(line(process))
                assert first["state"]["status"]["node"] == a.status().node
                ask_json(a, "revoke", member)
                out, _ = process.communicate(timeout=PATIENCE)
                assert process.returncode == 77
                assert "security.revoked" in out
            with pytest.raises(grpc.RpcError) as caught:
                list(said)
            assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (PhaseReport("mixing", 3), "round 3: mixing"),
        (ProblemReport("disk", "It is full."), "wrong: It is full."),
        (ProblemReport("disk", ""), "over: disk"),
        (GapReport(7), "7 events came too fast to be told; the state follows"),
    ],
)
def test_what_a_line_says(event: PhaseReport | ProblemReport | GapReport, text: str) -> None:
    assert line_of(EventReport("i", 1, 0.0, event)).endswith(f"  {text}")


def test_a_heartbeat_is_no_line() -> None:
    assert line_of(EventReport("i", 1, 0.0, HeartbeatReport())) == ""
