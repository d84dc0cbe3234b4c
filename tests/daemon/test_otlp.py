"""Figures to an OpenTelemetry collector: a real receiver on a real socket, that is there, goes and comes again."""

from __future__ import annotations

import gzip
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.sdk.resources import Resource

from decaf_node.daemon.disk_room import Disk
from decaf_node.daemon.metrics import metrics_of
from decaf_node.daemon.otlp import data_of
from decaf_node.daemon.scraping import collector_of
from decaf_node.errors import BadSettings
from tests.daemon.processes import PATIENCE, mesh, until
from tests.daemon.test_metrics import FULL, settings, values


class Collector:
    """Takes what is sent to /v1/metrics."""

    def __init__(self, port: int = 0) -> None:
        self.taken: list[ExportMetricsServiceRequest] = []
        self.came = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert (self.path, self.headers["Content-Type"]) == ("/v1/metrics", "application/x-protobuf")
                collector.taken.append(ExportMetricsServiceRequest.FromString(body))
                answer = ExportMetricsServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                collector.came.set()

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = int(self.server.server_address[1])

    @contextmanager
    def open(self) -> Iterator[Collector]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


def metrics_in(request: ExportMetricsServiceRequest) -> dict[str, Metric]:
    (resource,) = request.resource_metrics
    (scope,) = resource.scope_metrics
    return {metric.name: metric for metric in scope.metrics}


def resource_in(request: ExportMetricsServiceRequest) -> dict[str, str]:
    return {each.key: each.value.string_value for each in request.resource_metrics[0].resource.attributes}


def numbers(metrics: dict[str, Metric]) -> dict[str, float]:
    """All points as ``test_metrics.values`` writes samples."""
    found = {}
    for name, metric in metrics.items():
        end = "_total" if metric.HasField("sum") else ""
        for point in (metric.sum if metric.HasField("sum") else metric.gauge).data_points:
            labels = ",".join(sorted(f"{each.key}={each.value.string_value}" for each in point.attributes))
            found[name.removeprefix("decaf_node_") + end + (f"{{{labels}}}" if labels else "")] = point.as_double
    return found


def test_the_figures_are_those_of_prometheus_under_the_same_names() -> None:
    disk = Disk(1000, 400)
    data = data_of(metrics_of(FULL, disk), Resource.create({"service.name": "decaf-node"}), 5, 7)
    metrics = metrics_in(encode_metrics(data))
    assert numbers(metrics) == values(FULL, disk)
    mixes = metrics["decaf_node_mixes"]
    assert mixes.sum.is_monotonic
    assert mixes.sum.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert (mixes.sum.data_points[0].start_time_unix_nano, mixes.sum.data_points[0].time_unix_nano) == (5, 7)
    units = {name: metrics[f"decaf_node_{name}"].unit for name in ("uptime_seconds", "state_disk_free_bytes", "round")}
    assert units == {"uptime_seconds": "s", "state_disk_free_bytes": "By", "round": ""}


@pytest.mark.parametrize(
    "text", ["collector:4318", "ftp://c:4318", "http://", "http://c:no", "http://me:secret@c:4318", "http://c\n:4318"]
)
def test_what_is_no_collector_is_a_sentence_and_says_no_secret(text: str) -> None:
    with pytest.raises(BadSettings) as caught:
        collector_of(settings(otlp=text))
    assert caught.value.reason == "monitor.bad-otlp"
    assert "\n" not in caught.value.message
    assert "secret" not in caught.value.message


def test_it_is_off_unless_it_is_set() -> None:
    assert collector_of(settings()) is None
    assert collector_of(settings(otlp="https://collector.lab/otlp")) == "https://collector.lab/otlp"


@pytest.mark.parametrize("other", [None, "sdk", "exporter/jaeger"])
def test_it_needs_the_extra_whatever_else_of_opentelemetry_is_there(tmp_path: Path, other: str | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.path", [str(tmp_path)])
        for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
            patch.delitem(sys.modules, name)
        if other is not None:
            (tmp_path / "opentelemetry" / other).mkdir(parents=True)
        with pytest.raises(BadSettings) as caught:
            collector_of(settings(otlp="http://127.0.0.1:4318"))
    assert caught.value.reason == "monitor.no-otlp"
    assert "decaf-node[otel]" in caught.value.message


@pytest.mark.slow
def test_a_daemon_sends_to_a_collector_that_goes_and_comes_again() -> None:
    with mesh() as make:
        with Collector().open() as collector:
            place = f"http://127.0.0.1:{collector.port}"
            a = make("a", monitor={"otlp": place, "otlp_every": 1.0}).start()
            assert collector.came.wait(PATIENCE)
            until(lambda: numbers(metrics_in(collector.taken[-1])).get("last_round_steps") is not None)
            about, node = resource_in(collector.taken[-1]), a.status().node
            assert (about["service.name"], about["service.instance.id"]) == ("decaf-node", node)
            assert numbers(metrics_in(collector.taken[-1]))["round"] <= a.status().round
        a.says("does not take this node's figures")
        before = a.status().round
        a.until(lambda status: status.round > before + 2)
        with Collector(collector.port).open() as again:
            assert again.came.wait(PATIENCE)
            a.says("takes this node's figures again")
        log = a.log()
        assert log.count("does not take this node's figures") == log.count("takes this node's figures again") == 1
        assert "Traceback" not in log
        assert "Transient error" not in log


@pytest.mark.slow
def test_a_collector_that_never_answers_holds_up_no_stop() -> None:
    with mesh() as make, socket.create_server(("127.0.0.1", 0)) as deaf:
        a = make("a", monitor={"otlp": f"http://127.0.0.1:{deaf.getsockname()[1]}"}).start()
        connection, _ = deaf.accept()
        with connection:
            a.until(lambda status: status.round >= 2)
            a.signal(signal.SIGTERM)
            assert a.wait() == 0
