"""The node's figures to an OpenTelemetry collector, by OTLP over HTTP: those for Prometheus, under the same names.

Needs the extra ``otel``. One thread takes a reading, sends it, and waits: nothing is kept of what a collector that is
down has missed, for all counts are since the start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from concurrent.futures import TimeoutError as FutureTimeout

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import Metric

from decaf_node.daemon.logs import printable
from decaf_node.daemon.readings import Readings

SEND_SECONDS = 5.0  # that sending may take, with tries again
UNITS = {"seconds": "s", "bytes": "By", "ratio": "1"}  # by the end of a name, as UCUM writes them

log = logging.getLogger(__name__)


class Sender:
    """Sends readings every so many seconds until it is closed, the first at once. about: what is said of this node."""

    def __init__(self, endpoint: str, every: float, readings: Readings, about: dict[str, str]) -> None:
        """endpoint: without ``/v1/metrics``, and without secrets: it is written into the log"""
        self._endpoint = endpoint
        self._every = every
        self._readings = readings
        self._resource = Resource.create(dict(about))
        self._begun = time.time_ns()
        self._said = _LastWord()
        self._well = True
        self._closed = threading.Event()
        self._exporter = OTLPMetricExporter(endpoint=f"{endpoint.rstrip('/')}/v1/metrics", timeout=SEND_SECONDS)
        threading.Thread(target=self._run, name="otlp", daemon=True).start()
        log.info("Figures go to the OpenTelemetry collector at %s, every %g s.", endpoint, every)

    def close(self) -> None:
        """Send no more."""
        self._closed.set()
        self._exporter.shutdown()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                metrics = self._readings.metrics()
            except (FutureTimeout, RuntimeError):  # the loop is too busy, or has ended
                log.debug("No reading was to be had for the collector.")
            else:
                self._send(metrics)
            self._closed.wait(self._every)

    def _send(self, metrics: Iterable[Metric]) -> None:
        """Say once that the collector does not take them, and once that it does again."""
        data = data_of(metrics, self._resource, self._begun, time.time_ns())
        try:
            sent = self._exporter.export(data) is sdk.MetricExportResult.SUCCESS
        except OSError as error:  # older exporters let out what went wrong
            self._said.message, sent = str(error), False
        if self._closed.is_set() or sent == self._well:
            return
        self._well = sent
        if sent:
            log.info("The OpenTelemetry collector at %s takes this node's figures again.", self._endpoint)
        else:
            log.warning(
                "The OpenTelemetry collector at %s (monitor.otlp) does not take this node's figures: %s It is tried "
                "again every %g s.",
                *(self._endpoint, printable(self._said.message), self._every),
            )


class _LastWord(logging.Handler):
    """Keeps the last error of the exporter, which else would be said at every try."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.message = ""
        logger = logging.getLogger("opentelemetry")
        logger.handlers[:] = [self]
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.message = record.getMessage()


def data_of(metrics: Iterable[Metric], resource: Resource, begun: int, now: int) -> sdk.MetricsData:
    """Return metrics as the exporter takes them; times in ns since 1970."""
    scope = sdk.ScopeMetrics(InstrumentationScope("decaf_node"), [_metric(it, begun, now) for it in metrics], "")
    return sdk.MetricsData([sdk.ResourceMetrics(resource, [scope], "")])


def _metric(metric: Metric, begun: int, now: int) -> sdk.Metric:
    points = [sdk.NumberDataPoint(sample.labels, begun, now, float(sample.value)) for sample in metric.samples]
    name = f"{metric.name}_info" if metric.type == "info" else metric.name
    unit = UNITS.get(name.rpartition("_")[2], "")
    if metric.type == "counter":
        return sdk.Metric(
            name, metric.documentation, unit, sdk.Sum(points, sdk.AggregationTemporality.CUMULATIVE, True)
        )
    return sdk.Metric(name, metric.documentation, unit, sdk.Gauge(points))
