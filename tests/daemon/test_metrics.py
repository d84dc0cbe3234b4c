"""The metrics of a reading, and the server that shows them, without a daemon."""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from decaf_node.daemon import readings
from decaf_node.daemon.disk_room import Disk, disk_of
from decaf_node.daemon.metrics import NEIGHBOURS, PHASES, Reading, Validity, metrics_of
from decaf_node.daemon.metrics_server import REQUESTS_AT_MOST, MetricsServer
from decaf_node.daemon.reports import (
    EdgeReport,
    GpuReport,
    MachineReport,
    PeerReport,
    PrivacyReport,
    RoundReport,
    StatusReport,
    TrainerReport,
)
from decaf_node.daemon.scraping import metrics_address
from decaf_node.errors import DecafError
from decaf_node.mesh import phases
from decaf_node.settings import Settings, parse_settings

DEPLOYED = Path(__file__).parents[2] / "deploy"
TRAINER = TrainerReport(0, "starting", 0, "", 0, 0, None, 0, 0.0)
STATUS = StatusReport(
    *("NODE", "orin", "lab", "1.2.3", "i", "starting", "", 1, 0, 0, 0, (), 2.5, 4096, "127.0.0.1:1", "", TRAINER),
    *(None, 10, 20, "/", "/export", None),
)
PEER = PeerReport("P1", "desk", "alive", (), True, 7, 0.5, 0.25, 3.0, None, None, 0.75, 4, "", None)
STRANGER = PeerReport("P2", "", "gone", (), False, 0, None, None, None, None, None, None, 0, "", None)
ROUND = RoundReport(6, 1e9, 3, 0.5, 1, 2, 3, (EdgeReport("P1", 0.5, 3),), 0.1, 0.2, 5, 0.3, 9, 9, 0.7, 0.9, True)
BARE = Reading(STATUS, (), None)
FULL = Reading(
    replace(
        STATUS,
        problem="The disk is full.",
        phase="mixing",
        trainer=TrainerReport(5, "ready", 2, "cpu", 8, 1000, 0.5, 1, 1.0),
        last_round=ROUND,
        privacy=PrivacyReport(4.0, 1e-5, 1.5, 10, 90, 1.0),
    ),
    (PEER, STRANGER),
    Validity(100.0, 200.0),
)


def values(reading: Reading, disk: Disk | None = None) -> dict[str, float]:
    """All samples, under ``name{label=value,...}``, without the prefix."""
    return {
        sample.name.removeprefix("decaf_node_") + (f"{{{','.join(map('='.join, labels))}}}" if labels else ""): float(
            sample.value
        )
        for metric in metrics_of(reading, disk)
        for sample in metric.samples
        for labels in [sorted(sample.labels.items())]
    }


def settings(**monitor: Any) -> Settings:
    document = {"model": {"path": "m"}, "data": {"train": ["d"]}, "monitor": monitor}
    return parse_settings(document, "here")


def test_what_is_not_known_is_absent() -> None:
    names = {name.partition("{")[0] for name in values(BARE)}
    for absent in ("loss", "evaluation_loss", "cut_tail", "privacy_epsilon", "adapter_rank", "state_disk_free_bytes"):
        assert absent not in names
    assert not any(name.startswith(("neighbour_", "certificate_", "last_round_")) for name in names)
    unevaluated = replace(FULL.status, last_round=replace(ROUND, evaluation_loss=None, consensus_distance=None))
    assert not {"evaluation_loss", "consensus_distance"} & values(replace(FULL, status=unevaluated)).keys()


def test_every_figure_is_the_reports() -> None:
    got = values(FULL, Disk(1000, 10))
    expected = {
        "info{mesh=lab,name=orin,node=NODE,schema=,version=1.2.3}": 1,
        **{"uptime_seconds": 2.5, "resident_memory_bytes": 4096, "problem": 1, "round": 1, "saved_round": 0},
        **{"mixes_total": 0, "degree": 0, "awaited_neighbours": 0, "phase{phase=mixing}": 1, "phase{phase=saving}": 0},
        **{"snapshot_sent_bytes_total": 10, "snapshot_received_bytes_total": 20, "trainer_restarts_total": 2},
        **{"trainer_ready": 1, "trainer_parameters": 1000, "adapter_rank": 8, "loss": 0.5, "last_round_edges": 1},
        **{"last_round_timestamp_seconds": 1e9, "last_round_train_seconds": 1, "last_round_exchange_seconds": 2},
        **{"last_round_mix_seconds": 3, "last_round_steps": 3, "cut_tail": 0.1, "interference": 0.2, "product_norm": 5},
        **{"consensus_distance": 0.3, "evaluation_loss": 0.7, "evaluation_accuracy_ratio": 0.9},
        **{"privacy_epsilon": 4, "privacy_epsilon_spent": 1.5, "privacy_steps_left": 90},
        **{"peers{state=alive}": 1, "peers{state=late}": 0, "peers{state=gone}": 1},
        **{"neighbour_info{name=desk,peer=P1}": 1, "neighbour_heard_seconds{peer=P1}": 0.5},
        **{"neighbour_round{peer=P1}": 7, "neighbour_weight{peer=P1}": 0.25, "neighbour_distance{peer=P1}": 3},
        **{"neighbour_clip_ratio{peer=P1}": 0.75, "certificate_not_before_timestamp_seconds": 100},
        **{"certificate_expiry_timestamp_seconds": 200, "state_disk_size_bytes": 1000, "state_disk_free_bytes": 10},
    }
    assert {name: value for name, value in got.items() if name in expected} == expected
    assert {name for name in got if name not in expected} == {
        f"phase{{phase={phase}}}" for phase in PHASES if phase not in ("mixing", "saving")
    }


def test_figures_of_the_device_are_there_as_far_as_they_are_known() -> None:
    gpus = GpuReport("A2000", 0.5, 10, 20, 60.0, 40.0), GpuReport("?", None, None, None, None, None)
    got = values(replace(BARE, status=replace(STATUS, machine=MachineReport(gpus, 1, 2, None, 12.5))))
    expected = {
        **{"gpu_use_ratio{gpu=0}": 0.5, "gpu_memory_used_bytes{gpu=0}": 10, "gpu_memory_size_bytes{gpu=0}": 20},
        **{"gpu_temperature_celsius{gpu=0}": 60, "gpu_power_watts{gpu=0}": 40},
        **{"memory_used_bytes": 1, "memory_size_bytes": 2, "power_watts": 12.5},
    }
    assert {name: value for name, value in got.items() if name not in values(BARE)} == expected


def test_what_a_scrape_holds() -> None:
    secret = replace(FULL.status, address="10.9.8.7:1", state_folder="/private", adapter_folder="/private/adapter")
    metrics = list(metrics_of(replace(FULL, status=secret), None))
    labels = {pair for metric in metrics for sample in metric.samples for pair in sample.labels.items()}
    assert {name for name, _ in labels} == {"version", "mesh", "node", "name", "schema", "phase", "state", "peer"}
    texts = {value for name, value in labels if name not in ("phase", "state")}
    assert texts == {"1.2.3", "lab", "NODE", "orin", "", "P1", "desk"}


@pytest.mark.parametrize("file", ["prometheus/decaf-node.rules.yml", "grafana/decaf-node.json"])
def test_what_is_deployed_asks_for_nothing_else(file: str) -> None:
    asked = set(re.findall(r"\bdecaf_node_[a-z_]+", (DEPLOYED / file).read_text()))
    shown = {sample.name for metric in metrics_of(FULL, Disk(1000, 10)) for sample in metric.samples}
    assert len(asked) > 10
    assert asked <= shown


def test_labels_are_bounded() -> None:
    many = [replace(PEER, node=f"P{number:04}") for number in range(1000)]
    got = values(replace(BARE, peers=many))
    assert sum(name.startswith("neighbour_round{") for name in got) == NEIGHBOURS
    assert got["peers{state=alive}"] == 1000


def test_every_phase_of_the_machine_is_known() -> None:
    named = {
        name.lower() for name, it in vars(phases).items() if isinstance(it, type) and it.__module__ == phases.__name__
    }
    assert set(PHASES) <= named


@pytest.mark.parametrize(
    ("monitor", "expected"),
    [
        ({}, None),
        ({"metrics": "127.0.0.1:0"}, ("127.0.0.1", 0)),
        ({"metrics": "[::1]:9"}, ("::1", 9)),
        ({"metrics": "localhost:7436"}, ("localhost", 7436)),
        ({"metrics": "0.0.0.0:7436", "metrics_open": True}, ("0.0.0.0", 7436)),
    ],
)
def test_where_it_may_listen(monitor: dict[str, Any], expected: tuple[str, int] | None) -> None:
    assert metrics_address(settings(**monitor)) == expected


@pytest.mark.parametrize(
    ("monitor", "reason", "exit_code"),
    [
        ({"metrics": "0.0.0.0:7436"}, "monitor.open-metrics", 77),
        ({"metrics": "7436"}, "monitor.bad-address", 78),
        ({"metrics": "127.0.0.1:70000"}, "monitor.bad-address", 78),
        ({"metrics": "no..host:1"}, "monitor.bad-address", 78),
        ({"metrics": "no..host:1", "metrics_open": True}, "monitor.bad-address", 78),
    ],
)
def test_where_it_may_not(monitor: dict[str, Any], reason: str, exit_code: int) -> None:
    with pytest.raises(DecafError) as caught:
        metrics_address(settings(**monitor))
    assert (caught.value.reason, caught.value.exit_code) == (reason, exit_code)
    assert caught.value.message.count(". ") == 0, "one sentence"


@asynccontextmanager
async def served(reading: Reading = FULL, open_to_all: bool = False) -> AsyncIterator[int]:
    server = MetricsServer("127.0.0.1", 0, lambda: reading, open_to_all)
    try:
        yield server.port
    finally:
        await server.close()


def get(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20.0)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    finally:
        connection.close()


async def test_a_scrape_is_text_that_parses() -> None:
    async with served() as port:
        status, kind, text = await asyncio.to_thread(get, port)
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert {family.name for family in text_string_to_metric_families(text.decode())} > {"decaf_node_mixes"}
        _, kind, text = await asyncio.to_thread(get, port, Accept="application/openmetrics-text; version=1.0.0")
        assert kind.startswith("application/openmetrics-text")
        assert text.endswith(b"# EOF\n")


async def test_only_metrics_and_only_for_this_machine() -> None:
    async with served() as port:
        assert (await asyncio.to_thread(get, port, "/"))[0] == 404
        assert (await asyncio.to_thread(get, port, method="POST"))[0] == 501
        assert (await asyncio.to_thread(get, port, Host=f"localhost:{port}"))[0] == 200
        for name in ("evil.example", "127.0.0.1.evil.example:80", "127.evil.example", ""):
            assert (await asyncio.to_thread(get, port, Host=name))[0] == 403, name
    async with served(open_to_all=True) as port:
        assert (await asyncio.to_thread(get, port, Host="orin-a:7436"))[0] == 200


@pytest.mark.slow
async def test_connections_that_say_nothing_cost_no_more_than_a_few_threads() -> None:
    async with served() as port:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * REQUESTS_AT_MOST)]
        try:
            end = time.monotonic() + 30.0
            while True:  # until those that are held have been silent for too long
                try:
                    status = (await asyncio.to_thread(get, port))[0]
                    break
                except (ConnectionError, http.client.HTTPException):
                    assert time.monotonic() < end
                    await asyncio.sleep(0.05)
            assert status == 200
        finally:
            for connection in silent:
                connection.close()


async def test_a_loop_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as port:
        with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
            patch.setattr(readings, "LOOP_SECONDS", 0.05)
            assert pool.submit(get, port).result()[0] == 503  # this waits on the loop, and nothing else runs there
        assert (await asyncio.to_thread(get, port))[0] == 200


async def test_a_port_that_is_taken_is_said() -> None:
    async with served() as port:
        with pytest.raises(DecafError, match=f"Port {port} of 127.0.0.1") as caught:
            MetricsServer("127.0.0.1", port, lambda: FULL, False)
    assert (caught.value.reason, caught.value.exit_code) == ("monitor.port-in-use", 75)
    with pytest.raises(DecafError, match="no address of this machine") as caught:
        MetricsServer("192.0.2.1", 0, lambda: FULL, True)
    assert (caught.value.reason, caught.value.exit_code) == ("monitor.bad-address", 78)


def test_the_disk_of_a_folder(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    assert disk is not None
    assert 0 <= disk.free_bytes <= disk.size_bytes
    assert disk_of(tmp_path / "none") is None
