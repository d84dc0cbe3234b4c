"""What the HTTP servers of a daemon share: plain HTTP, read only, a few requests at a time in threads of their own."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import re
import socket
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from decaf_node.daemon.addresses import split
from decaf_node.daemon.listening import try_to_bind
from decaf_node.errors import BadSettings, DecafError, NotAllowed, TryAgain

SILENT_SECONDS = 5.0  # a request is here by then, and what is written is taken within it
REQUEST_LIMIT_BYTES = 32 * 1024
POLL_SECONDS = 0.1

log = logging.getLogger(__name__)


class LocalServer(ThreadingHTTPServer):
    """Listens at ``host:port`` until it is closed. at_most: connections at a time; more are dropped.

    setting: what a person may change if it cannot listen there. Raises TryAgain ``monitor.port-in-use``, NotAllowed
    ``monitor.forbidden``, BadSettings ``monitor.bad-address``.
    """

    daemon_threads = True
    request_queue_size = 32  # a browser opens several connections at once

    def __init__(self, host: str, port: int, handler: type[LocalHandler], at_most: int, setting: str) -> None:
        self._room = threading.BoundedSemaphore(at_most)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), handler)
        except OSError as error:
            raise _why(host, port, setting, error) from error
        self.port = int(self.server_address[1])

    def start(self) -> None:
        """Answer from now on, in threads."""
        threading.Thread(target=self.serve_forever, args=(POLL_SECONDS,), name="http", daemon=True).start()

    async def close(self) -> None:
        """Listen no more."""
        await asyncio.to_thread(self.shutdown)
        self.server_close()

    def server_bind(self) -> None:
        """Bind, without asking for a name of the address as ``HTTPServer`` does."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if one is free."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread is to be had
            self._room.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and be free again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asks may hang up whenever it likes."""
        log.debug("A request came to nothing.", exc_info=True)


class LocalHandler(BaseHTTPRequestHandler):
    """Answers one request of bounded size and time."""

    server_version = "decaf-node"
    sys_version = ""

    def setup(self) -> None:
        """Read within the bounds."""
        super().setup()
        self.rfile = io.BufferedReader(_Request(self.connection))

    def names_this_machine(self) -> bool:
        """Say whether ``Host`` does: else a web page elsewhere could ask by a name of its own (DNS rebinding)."""
        host = self.headers.get("Host", "")
        bare = (split(host) or split(f"{host}:1") or ("", 0))[0]
        return bare in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", bare) is not None

    def answer(self, kind: str, body: bytes, status: int = 200) -> None:
        """Send it whole."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A request is no news."""


class _Request(io.RawIOBase):
    """What comes over a connection, up to a size and a moment."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._left = REQUEST_LIMIT_BYTES
        self._until = time.monotonic() + SILENT_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises ConnectionError where it is too long (an end would be taken for that of the headers), TimeoutError."""
        if self._left == 0:
            raise ConnectionAbortedError(f"a request of more than {REQUEST_LIMIT_BYTES} bytes")
        try:
            self._connection.settimeout(max(0.001, self._until - time.monotonic()))
            count = self._connection.recv_into(buffer, min(len(buffer), self._left))
        finally:
            self._connection.settimeout(SILENT_SECONDS)  # for what is written
        self._left -= count
        return count


def try_local(host: str, port: int, setting: str) -> None:
    """Raise what ``LocalServer`` does unless one can listen there."""
    try:
        try_to_bind(host, port)
    except OSError as error:
        raise _why(host, port, setting, error) from error


def _why(host: str, port: int, setting: str, error: OSError) -> DecafError:
    match error.errno:
        case errno.EADDRINUSE:
            return TryAgain(
                "monitor.port-in-use",
                f"Port {port} of {host} ({setting}) is in use by another program; stop that one, or set another "
                "(0 takes a free one).",
            )
        case errno.EACCES:
            return NotAllowed("monitor.forbidden", f"Port {port} ({setting}) is kept for root; set one from 1024.")
        case _:
            return BadSettings(
                "monitor.bad-address",
                f"{setting}: {host!r} is no address of this machine ({error.strerror}); use 127.0.0.1.",
            )
