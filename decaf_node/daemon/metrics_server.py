"""``GET /metrics``: the node's figures for Prometheus, in plain HTTP, off unless ``monitor.metrics`` says where.

Requests are answered in threads of their own, a few at a time. The event loop is asked for one reading, which costs it
what ``decaf-node status`` costs; the text is made, and the disk is asked, in the thread.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import socket
import socketserver
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from decaf_node.daemon.addresses import join, split
from decaf_node.daemon.disk_room import disk_of
from decaf_node.daemon.metrics import Reading, metrics_of
from decaf_node.errors import BadSettings, DecafError, NotAllowed, TryAgain

REQUESTS_AT_MOST = 4
SILENT_SECONDS = 5.0  # a connection that says nothing is dropped then
READING_SECONDS = 5.0  # the event loop answers by then, or Prometheus hears 503
POLL_SECONDS = 0.1

log = logging.getLogger(__name__)


class MetricsServer:
    """Serves readings at ``host:port`` until it is closed. read: called on the event loop, must be quick.

    open_to_all: any name in ``Host`` will do; else only this machine's, so that no web page elsewhere can read it.
    Raises TryAgain ``monitor.port-in-use``, NotAllowed ``monitor.forbidden``, BadSettings ``monitor.bad-address``.
    """

    def __init__(self, host: str, port: int, read: Callable[[], Reading], open_to_all: bool) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(read, asyncio.get_running_loop()))
        try:
            self._server = _Server(host, port, registry, open_to_all)
        except OSError as error:
            raise _why(host, port, error) from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_SECONDS,), name="metrics", daemon=True
        )
        self._thread.start()
        log.info("Metrics for Prometheus are at http://%s/metrics.", join(host, self.port))

    async def close(self) -> None:
        """Listen no more."""
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()


class _Collector(Collector):
    def __init__(self, read: Callable[[], Reading], loop: asyncio.AbstractEventLoop) -> None:
        self._read = read
        self._loop = loop

    def describe(self) -> list[Metric]:
        """Nothing is known before it is read."""
        return []

    def collect(self) -> list[Metric]:
        """Take a reading. Raises TimeoutError of ``concurrent.futures`` where the loop is too busy."""
        reading = asyncio.run_coroutine_threadsafe(self._take(), self._loop).result(READING_SECONDS)
        return list(metrics_of(reading, disk_of(Path(reading.status.state_folder))))

    async def _take(self) -> Reading:
        return self._read()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, registry: CollectorRegistry, open_to_all: bool) -> None:
        self.registry = registry
        self.open_to_all = open_to_all
        self._room = threading.BoundedSemaphore(REQUESTS_AT_MOST)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind, without asking for a name of the address as ``HTTPServer`` does."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if one is free."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and be free again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asks may hang up whenever it likes."""
        log.debug("A request for metrics came to nothing.", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = SILENT_SECONDS
    server_version = "decaf-node"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the metrics, in the form that is asked for."""
        if not self.server.open_to_all and not _names_this_machine(self.headers.get("Host", "localhost")):
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
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape is no news."""


def _names_this_machine(host: str) -> bool:
    bare = (split(host) or split(f"{host}:1") or ("", 0))[0]
    return bare in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", bare) is not None


def _why(host: str, port: int, error: OSError) -> DecafError:
    match error.errno:
        case errno.EADDRINUSE:
            return TryAgain(
                "monitor.port-in-use",
                f"Port {port} of {host} (monitor.metrics) is in use by another program; stop that one, or set another "
                "(0 takes a free one).",
            )
        case errno.EACCES:
            return NotAllowed(
                "monitor.forbidden", f"Port {port} (monitor.metrics) is kept for root; set one from 1024."
            )
        case _:
            return BadSettings(
                "monitor.bad-address",
                f"monitor.metrics: {host!r} is no address of this machine ({error.strerror}); use 127.0.0.1.",
            )
