"""``GET /metrics``: the node's figures for Prometheus, in plain HTTP, off unless ``monitor.metrics`` says where.

The event loop is asked for one reading, which costs it what ``decaf-node status`` costs; the text is made, and the disk
is asked, in the thread that answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from decaf_node.daemon.addresses import join
from decaf_node.daemon.local_http import LocalHandler, LocalServer
from decaf_node.daemon.metrics import Reading
from decaf_node.daemon.readings import Readings

REQUESTS_AT_MOST = 4

log = logging.getLogger(__name__)


class MetricsServer(LocalServer):
    """Serves readings at ``host:port`` until it is closed. read: called on the event loop, must be quick.

    open_to_all: any name in ``Host`` will do; else only this machine's, so that no web page elsewhere can read it.
    Raises what ``LocalServer`` does.
    """

    def __init__(self, host: str, port: int, read: Callable[[], Reading], open_to_all: bool) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Collector(Readings(read)))
        self.open_to_all = open_to_all
        super().__init__(host, port, _Handler, REQUESTS_AT_MOST, "monitor.metrics")
        self.start()
        log.info("Metrics for Prometheus are at http://%s/metrics.", join(host, self.port))


class _Collector(Collector):
    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def describe(self) -> list[Metric]:
        """Nothing is known before it is read."""
        return []

    def collect(self) -> list[Metric]:
        """Take a reading. Raises what ``Readings.metrics`` does."""
        return self._readings.metrics()


class _Handler(LocalHandler):
    server: MetricsServer

    def do_GET(self) -> None:
        """Answer with the metrics, in the form that is asked for."""
        if not self.server.open_to_all and not self.names_this_machine():
            self.send_error(403, "Metrics are for this machine")
            return
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "Metrics are at /metrics")
            return
        encode, kind = choose_encoder(self.headers.get("Accept", ""))
        try:
            text = encode(self.server.registry)
        except (FutureTimeout, RuntimeError):  # RuntimeError: the loop has ended
            self.send_error(503, "The daemon is busy or stopping")
            return
        self.answer(kind, text)
