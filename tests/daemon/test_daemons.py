"""Whole daemons, each a process with a trainer process of its own, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from decaf_node.daemon.reports import StatusReport
from decaf_node.daemon.said import agreed
from tests.daemon.disks import small_disk
from tests.daemon.processes import ROOT, TRAINER, Daemon, alive, mesh, until

pytestmark = pytest.mark.slow


def done(rounds: int) -> dict[str, object]:
    return {"steps": 3, "overlap": False, "limit": rounds, "wait_floor": 2.0}


def is_done(status: StatusReport) -> bool:
    return status.phase == "done" and status.saved_round == status.round


def exported(status: StatusReport) -> float:
    return float(json.loads(Path(status.adapter_folder, "value.json").read_text())["value"])


def labels_at(node: Daemon) -> list[float]:
    """Return how frequent labels are in the mesh, as the node's trainer was told before its last save."""
    return list(json.loads(Path(node.status().adapter_folder, "value.json").read_text())["labels"])


def comes_to(node: Daemon, *labels: float) -> None:
    node.until(lambda status: status.saved_round > 0 and labels_at(node) == pytest.approx(labels, abs=1e-6))


def test_trainers_hear_how_frequent_labels_are_in_the_mesh() -> None:
    with mesh() as make:
        few, most, even = (0.75, 0.25), (0.875, 0.125), (0.5, 0.5)
        a = make("a", script={"labels": few}).start()
        comes_to(a)
        b = make("b", a, script={"labels": most}).start()
        comes_to(a, *agreed([few, most], 2))
        comes_to(b, *agreed([few, most], 2))
        quiet = make("quiet", a, b, script={"labels": most}, privacy={"share_labels": False}).start()
        odd = make("odd", a, b, script={"labels": (7.0, 1.0)}, privacy={"share_metrics": True}).start()
        comes_to(a, *agreed([few, most, even, even], 2))  # these two do not say
        comes_to(quiet, *agreed([few, most, most, even], 2))
        mixed = odd.mixed().round
        odd.until(lambda status: status.saved_round >= mixed)
        assert labels_at(odd) == []
        b.end()
        after = a.status().round + 3
        a.until(lambda status: status.saved_round >= after)
        comes_to(a, *agreed([few, most, even, even], 2))  # what b has learned is still there


def test_two_nodes_meet_mix_and_save() -> None:
    with mesh() as make:
        script = {"bulk": 3_000_000, "seconds": 1.0}  # long enough that the second has come before the first is done
        a = make("a", script={**script, "value": 1.0}, round=done(6)).start()
        b = make("b", a, script={**script, "value": 3.0, "drift": 0.5}, round=done(6)).start()
        ends = a.until(is_done), b.until(is_done)
        assert sum(exported(end) for end in ends) == pytest.approx(1.0 + 3.0 + 6 * 0.5, abs=1e-4)
        rows = a.rounds()
        assert [row.round for row in rows] == [6, 5, 4, 3, 2, 1]
        assert all(row.saved and row.evaluation_accuracy == 0.5 for row in rows)
        mixed = [row for row in rows if row.edges]
        assert mixed, "they met"
        assert mixed[0].edges[0].node == ends[1].node
        assert mixed[0].edges[0].weight == 0.5
        assert mixed[0].consensus_distance == pytest.approx(mixed[0].edges[0].distance)
        assert mixed[0].sent_bytes > 3_000_000
        assert ends[0].sent_bytes == ends[1].received_bytes > 0
        assert ends[0].problem == ""
        peers = a.client().peers()
        assert [(peer.node, peer.name, peer.state, peer.neighbour) for peer in peers] == [
            (ends[1].node, "b", "alive", True)
        ]
        assert "Peer b (" in a.log()
        assert "; mixed with a (" in b.log()


def test_five_nodes_find_each_other_by_mdns_and_stay_small() -> None:
    with mesh() as make:
        discovery = {"mdns": True, "interfaces": ["127.0.0.1"]}
        name = f"lab-{os.getpid()}"
        script = {"bulk": 4_000_000, "seconds": 0.5}
        nodes = [
            make(
                f"n{i}",
                discovery=discovery,
                script={**script, "value": float(i), "drift": i / 100},
                mesh={"name": name, "peers": []},
            ).start()
            for i in range(5)
        ]
        for node in nodes:
            node.until(lambda status: status.degree == 4 and status.received_bytes > 30_000_000)
        until(lambda: spread([exported(node.status()) for node in nodes]) < 0.5)
        largest = 0
        for node in nodes:
            started = time.monotonic()
            largest = max(largest, node.status().resident_bytes)
            assert time.monotonic() - started < 0.5
        print(f"resident memory of a daemon with four peers: {largest / 1e6:.1f} MB at most")
        assert largest < 120e6
        for node in nodes:
            node.signal(signal.SIGTERM)
        assert [node.wait() for node in nodes] == [0] * 5
        assert all("heavy modules: []" in node.log() for node in nodes)


def spread(values: Sequence[float]) -> float:
    return max(values) - min(values)


def partners(node: Daemon) -> set[str]:
    """Return those that it has mixed with of late."""
    return {edge.node for row in node.rounds() for edge in row.edges}


def test_one_address_is_enough_to_find_everyone() -> None:
    with mesh() as make:
        a = make("a").start()
        others = [make(name, a).start() for name in ("b", "c", "d")]
        ids = {node.name: node.until(lambda status: status.degree == 3).node for node in (a, *others)}
        for node in others:
            strangers = {ids[other.name] for other in others if other is not node}
            until(partial(lambda node, strangers: strangers <= partners(node), node, strangers))
        d = others[-1]
        d.signal(signal.SIGTERM)
        assert d.wait() == 0
        for node in (a, *others[:-1]):
            node.until(lambda status: status.degree == 2)


def test_a_peer_that_hangs_is_missed_and_comes_back() -> None:
    with mesh() as make:
        a = make("a").start()
        b = make("b", a).start()
        a.until(lambda status: status.mixes > 2)
        b.signal(signal.SIGSTOP)
        try:
            onward = a.status().round
            a.until(lambda status: status.round > onward + 3)
        finally:
            b.signal(signal.SIGCONT)
        mixes = b.until(lambda status: True).mixes
        b.until(lambda status: status.mixes > mixes + 2)


def test_a_killed_trainer_is_started_again_and_the_round_goes_on() -> None:
    with mesh() as make:
        a = make("a", round=done(5)).start()
        b = make("b", a)
        script = {"die_in_round": 3, "once": str(b.folder / "died"), "value": 2.0}
        b.configure({"training.arguments": script, "mesh": {"peers": [a.address()]}, "round": done(5)})
        b.start()
        status = b.until(is_done)
        assert status.trainer.restarts == 1
        assert status.round == 5
        assert "killed by SIGKILL" in b.log()
        a.until(is_done)


def test_a_trainer_that_hangs_is_started_again() -> None:
    with mesh() as make:
        a = make("a", limits={"trainer_silence": 2.0})
        script = {"hang_in_round": 3, "once": str(a.folder / "hung")}
        a.configure({"training.arguments": script, "limits": {"trainer_silence": 2.0}, "round": done(5)})
        a.start()
        status = a.until(is_done)
        assert status.trainer.restarts == 1
        assert "has said nothing for 2 s (limits.trainer_silence)" in a.log()


def test_a_trainer_that_rests_does_not_hang() -> None:
    with mesh() as make:
        a = make("a", limits={"trainer_silence": 0.2}, round=done(2)).start()
        assert a.until(is_done).trainer.loss == 0.5  # the last round's: none is known of the next
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 2.0)
        assert a.status().trainer.restarts == 0
        assert "has said nothing" not in a.log()


def test_who_waits_for_a_slow_disk_of_the_daemon_does_not_hang() -> None:
    with mesh() as make:
        a = make("a", limits={"trainer_silence": 0.5}, round=done(2))
        a.environ["FSYNC_SECONDS"] = "0.6"
        assert a.start().until(is_done).trainer.restarts == 0
        assert "has said nothing" not in a.log()


def test_a_stop_does_not_wait_for_a_trainer_that_is_being_loaded() -> None:
    with mesh() as make:
        a = make("a", script={"loading": 3600.0}).start()
        a.says("scripted trainer is here")
        trainer = a.until(lambda status: status.trainer.state == "starting").trainer.pid
        started = time.monotonic()
        a.signal(signal.SIGTERM)
        assert a.wait() == 0
        assert time.monotonic() - started < 6
        assert "could not be saved in time" not in a.log()
        assert not alive(trainer)


def test_a_killed_daemon_takes_its_trainer_along_and_resumes_the_saved_round() -> None:
    with mesh() as make:
        a = make("a", script={"value": 1.0}).start()
        b = make("b", a, script={"value": 5.0}).start()
        before = b.until(lambda status: status.saved_round >= 3 and status.mixes > 0)
        b.signal(signal.SIGKILL)
        assert b.wait() == -signal.SIGKILL
        until(lambda: not alive(before.trainer.pid), patience=2.0)
        onward = a.status().round
        a.until(lambda status: status.round > onward + 1)  # the other goes on without it
        b.start()
        after = b.until(lambda status: status.mixes > before.mixes and status.saved_round > before.saved_round)
        assert after.node == before.node
        assert after.instance != before.instance
        b.signal(signal.SIGTERM)
        assert b.wait() == 0


def test_sigterm_saves_the_round_and_says_goodbye() -> None:
    with mesh() as make:
        a = make("a").start()
        b = make("b", a, store={"save_every": 3600}).start()
        trainer = b.until(lambda status: status.round >= 5).trainer.pid
        started = time.monotonic()
        b.signal(signal.SIGTERM)
        assert b.wait() == 0
        assert time.monotonic() - started < 10
        assert not alive(trainer)
        assert not list(b.runtime.glob("*.sock"))
        with a.client() as client:
            until(lambda: [peer.state for peer in client.peers()] == ["gone"], patience=10.0)
        b.configure({"round": done(1), "mesh": {"peers": [a.address()]}})
        b.start()
        assert b.until(lambda status: status.phase == "done").saved_round >= 4


def test_a_trainer_that_does_not_stop_is_killed_in_time() -> None:
    with mesh() as make:
        a = make("a", script={"ignore_stop": True}).start()
        trainer = a.until(lambda status: status.saved_round >= 1).trainer.pid
        started = time.monotonic()
        a.signal(signal.SIGTERM)
        assert a.wait() == 0
        assert time.monotonic() - started < 10
        assert not alive(trainer)


def test_a_second_signal_stops_at_once() -> None:
    with mesh() as make:
        a = make("a", script={"seconds": 3600, "ignore_stop": True}).start()
        pid = a.until(lambda status: status.trainer.state == "ready").trainer.pid
        os.kill(pid, signal.SIGSTOP)  # it will never save
        a.signal(signal.SIGTERM)
        a.says("Stopping")
        started = time.monotonic()
        a.signal(signal.SIGINT)
        assert a.wait() == 0
        assert time.monotonic() - started < 4
        assert not alive(pid)


def test_a_stop_that_cannot_save_ends_within_its_limit() -> None:
    with mesh() as make:
        a = make("a", script={"seconds": 3600}, limits={"stop": 4.0}).start()
        pid = a.until(lambda status: status.trainer.state == "ready").trainer.pid
        os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        a.signal(signal.SIGTERM)
        assert a.wait() == 0
        assert time.monotonic() - started < 5
        assert "could not be saved in time" in a.log()


def test_one_state_folder_has_one_daemon() -> None:
    with mesh() as make:
        a = make("a").start()
        a.until(lambda status: status.round >= 1)
        b = make("b")
        b.state = a.state
        b.start()
        assert b.wait() == 75
        assert "[state.locked]" in b.log()
        assert a.status().problem == ""


def test_one_runtime_folder_has_one_daemon() -> None:
    with mesh() as make:
        a = make("a").start()
        a.until(lambda status: status.round >= 1)
        b = make("b")
        b.runtime = a.runtime
        b.start()
        assert b.wait() == 75
        assert "[daemon.already-running]" in b.log()
        assert a.status().trainer.state == "ready"


def test_a_stale_control_socket_is_replaced() -> None:
    with mesh() as make:
        a = make("a").start()
        a.until(lambda status: status.round >= 1)
        a.signal(signal.SIGKILL)
        a.wait()
        assert (a.runtime / "control.sock").exists()
        a.start()
        a.until(lambda status: status.round >= 1)
        assert stat.S_IMODE((a.runtime / "control.sock").stat().st_mode) == 0o600
        assert stat.S_IMODE((a.runtime / "trainer.sock").stat().st_mode) == 0o600


def test_a_port_in_use_is_named() -> None:
    with mesh() as make, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        a = make("a", listen={"port": port}).start()
        assert a.wait() == 75
        assert f"Port {port}" in a.log()
        assert "[listen.port-in-use]" in a.log()


@pytest.mark.parametrize(
    ("settings", "code", "reason"),
    [
        ({"authority": None}, 77, "security.no-certificate"),
        ({"listen": {"port": 0, "address": "192.0.2.1"}}, 78, "listen.bad-address"),
        ({"mesh": {"peers": ["nowhere"]}}, 78, "settings.bad-peer"),
        ({"script": {"fail": "model.missing 78 fatal"}}, 78, "model.missing"),
        ({"script": {"fail": "data.empty 65 no"}, "limits": {"trainer_restarts": 2}}, 65, "data.empty"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_its_exit_code(
    settings: dict[str, dict[str, object]], code: int, reason: str
) -> None:
    with mesh() as make:
        a = make("a", **settings).start()
        assert a.wait() == code
        said = [line for line in a.log().splitlines() if line.startswith("error: ")]
        assert len(said) == 1
        assert f"[{reason}]" in said[0]
        assert "Traceback" not in a.log()
        assert not list(a.runtime.glob("*.sock"))


def test_plaintext_beyond_loopback_is_said_in_one_line() -> None:
    with mesh() as make:
        a = make("a", listen={"port": 0, "address": "0.0.0.0"}, security={"insecure": True}).start()
        a.until(lambda status: status.round >= 1)
        assert a.log().count("in plaintext") == 1


def test_a_state_folder_of_another_schema_is_refused() -> None:
    with mesh() as make:
        a = make("a").start()
        a.until(lambda status: status.saved_round >= 1)
        a.signal(signal.SIGTERM)
        assert a.wait() == 0
        a.configure({"training.arguments": {"schema": "c" * 64, "parts": "other"}})
        a.start()
        assert a.wait() == 78
        assert "[state.other-schema]" in a.log()


def test_a_peer_of_another_mesh_is_refused_by_name() -> None:
    with mesh() as make:
        plain = {"insecure": True}  # with TLS its certificate is refused before it says a name
        a = make("a", security=plain).start()
        b = make("b", a, mesh={"name": "elsewhere", "peers": [a.address()]}, security=plain).start()
        until(lambda: "'elsewhere'" in b.log() and "refuses" in b.log())
        assert a.client().peers() == []


def test_a_peer_of_another_schema_is_refused_by_name() -> None:
    with mesh() as make:
        a = make("a").start()
        b = make("b", a, script={"schema": "c" * 64}).start()
        problem = a.until(lambda status: "schema" in status.problem).problem
        assert problem.startswith("b (")
        b.until(lambda status: "schema" in status.problem and status.round > 3)  # both train on
        assert b.status().mixes == 0


def test_a_snapshot_that_is_not_finite_is_refused_by_name() -> None:
    with mesh() as make:
        a = make("a", script={"value": 1.0}).start()
        b = make("b", a, script={"publish_nan": True}).start()
        problem = a.until(lambda status: "not finite" in status.problem).problem
        assert problem.startswith("b (")
        assert "Edge with b (" in a.log()
        before = a.status().saved_round
        assert exported(a.until(lambda status: status.saved_round > before)) == 1.0
        assert not any(row.edges for row in b.rounds()), "though it may have adopted what a had learned"


def test_pause_and_resume() -> None:
    with mesh() as make:
        a = make("a").start()
        a.until(lambda status: status.saved_round >= 1)
        with a.client() as client:
            assert client.pause() == "paused"
            b = make("b", a).start()
            onward = b.until(lambda status: status.round > 5).round  # what was under way at the pause is over
            still = client.status().round
            b.until(lambda status: status.round > onward + 5)
            assert client.status().round == still
            assert client.resume().phase != "paused"
        a.until(lambda status: status.mixes > 0)


def test_a_static_peer_that_comes_late_is_found() -> None:
    with mesh() as make, socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        a = make("a", mesh={"peers": [f"127.0.0.1:{port}"]}).start()
        a.until(lambda status: status.saved_round >= 2)
        assert a.status().mixes == 0
        place.close()
        b = make("b", listen={"port": port}).start()
        b.until(lambda status: status.mixes > 0)
        a.until(lambda status: status.mixes > 0)


def test_json_lines_have_stable_keys() -> None:
    with mesh() as make:
        a = make("a", log={"format": "json"}, round=done(1)).start()
        a.until(is_done)
        lines = [json.loads(line) for line in a.log().splitlines()]
        assert all({"time", "level", "part", "message"} <= line.keys() for line in lines)
        (row,) = [line for line in lines if line.get("event") == "round"]
        assert (row["round"], row["accuracy"], row["neighbours"]) == (1, 0.5, [])


def test_a_full_disk_is_said_and_the_mesh_goes_on(tmp_path: Path) -> None:
    with mesh() as make, small_disk(tmp_path / "disk", 8000) as disk:
        a = make("a", script={"value": 1.0}).start()
        b = make("b", a, script={"value": 3.0, "save_bytes": 300_000})
        b.state = disk / "state"
        b.start()
        c = make("c", a, script={"value": 2.0}).start()
        b.until(lambda status: status.saved_round >= 2 and status.mixes > 0)
        ballast = disk / "ballast"
        with contextlib.suppress(OSError):
            ballast.write_bytes(b"0" * 9_000_000)
        full = b.until(lambda status: "not saved" in status.problem)
        assert "No space" in full.problem
        others = c.until(lambda status: status.mixes > 0).mixes
        onward = b.until(lambda status: status.round > full.round + 2)
        c.until(lambda status: status.mixes > others + 2)
        assert onward.saved_round < full.round
        assert exported(onward) == pytest.approx(2.0, abs=1.001)  # the last saved round is whole
        ballast.unlink()
        again = b.until(lambda status: status.saved_round > onward.round and not status.problem)
        b.until(lambda status: status.mixes > again.mixes)


def test_a_newcomer_adopts_what_the_mesh_knows() -> None:
    with mesh() as make:
        a = make("a", script={"value": 4.0}).start()
        b = make("b", a, script={"value": 4.0}).start()
        a.until(lambda status: status.mixes > 3)
        b.until(lambda status: status.mixes > 3)
        c = make("c", a, b, script={"value": -1000.0}).start()
        new = c.until(lambda status: status.mixes > 1 and status.saved_round == status.round - 1)
        assert exported(new) == pytest.approx(4.0)
        assert new.round >= 3
        assert exported(a.status()) == pytest.approx(4.0)


def test_snapshots_leave_by_no_more_than_allowed_and_keep_nobody_from_stopping() -> None:
    with mesh() as make:
        slow = {"limits": {"upload_bytes_per_second": 100_000}, "script": {"bulk": 200_000}}
        waits = {"round": {"wait_floor": 60.0, "wait_ceiling": 60.0}}
        a = make("a", **slow, **waits).start()
        b = make("b", a, script={"bulk": 200_000, "drift": 0.5}, **waits).start()  # so snapshots differ
        mixed = b.mixed()
        assert mixed.received_bytes > 200_000
        assert mixed.exchange_seconds > 1.5
        a.signal(signal.SIGTERM)  # the next one is on its way
        assert a.wait() == 0


def test_a_trainer_of_ones_own_is_served() -> None:
    with mesh() as make:
        a = make("a", training={"trainer": "external"}).start()
        assert a.until(lambda status: True).trainer.state == "external"
        program = [sys.executable, str(TRAINER), "--socket", str(a.runtime / "trainer.sock")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        own = subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL)
        try:
            status = a.until(lambda status: status.saved_round >= 2)
            assert status.trainer.pid == own.pid
            own.kill()
            own.wait()
            lost = a.until(lambda status: status.trainer.state == "external" and status.phase == "starting")
            assert "There is no trainer" in lost.problem
            assert lost.trainer.pid == 0
            own = subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL)
            a.until(lambda status: status.saved_round > lost.saved_round)
            a.signal(signal.SIGTERM)
            assert a.wait() == 0
            assert own.wait(5) == 0
        finally:
            own.kill()
            own.wait()
