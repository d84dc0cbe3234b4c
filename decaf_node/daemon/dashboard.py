"""The web page of a node: plain HTTP on loopback, read only, off by default.

One server for both who serve it, the daemon itself and ``decaf-node dashboard``: it asks the daemon as every other
client does. ``_refused`` and ``HEADERS`` keep pages of elsewhere out, and ours from what it must not do.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from decaf_node.daemon.client import Client
from decaf_node.daemon.documents import event_document, json_line
from decaf_node.daemon.local_http import LocalHandler, LocalServer
from decaf_node.errors import DecafError, TryAgain, UsageError
from decaf_node.settings import Settings

HOST = "127.0.0.1"
CONNECTIONS_AT_MOST = 32
STREAMS_AT_MOST = 8  # of those: a stream is a page that is open
RETRY_MILLISECONDS = 2000
ROUNDS_LIMIT = 500
NUMBER = re.compile("[0-9]{1,15}")
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

Query = dict[str, list[str]]

log = logging.getLogger(__name__)


class DashboardServer(LocalServer):
    """Serves the page of the daemon that ``client`` asks, on loopback, until it is closed. Closes the client too.

    Raises what ``LocalServer`` does.
    """

    def __init__(self, port: int, client: Client, setting: str) -> None:
        self.client = client
        self.streams = threading.BoundedSemaphore(STREAMS_AT_MOST)
        super().__init__(HOST, port, _Handler, CONNECTIONS_AT_MOST, setting)
        self.address = f"http://{HOST}:{self.port}/"
        self.start()

    def server_close(self) -> None:
        """End the streams too."""
        super().server_close()
        self.client.close()


def serve_dashboard(settings: Settings, control_socket: Path) -> DashboardServer | None:
    """Serve the page of this daemon, if the settings say so. Raises what ``DashboardServer`` does."""
    if not settings.monitor.dashboard:
        return None
    server = DashboardServer(settings.monitor.dashboard_port, Client(control_socket), "monitor.dashboard_port")
    log.info("The page of this node is at %s.", server.address)
    return server


class _Handler(LocalHandler):
    server: DashboardServer

    def do_GET(self) -> None:
        """Answer with a file of the page, what the daemon says, or what happens."""
        path, _, query = self.path.partition("?")
        if (why := self._refused()) is not None:
            self._answer_json({"error": {"reason": "monitor.elsewhere", "message": why}}, 403)
        elif (file := page().get(path)) is not None:
            self.answer(*file)
        elif path == "/events":
            self._answer_events()
        elif (question := QUESTIONS.get(path)) is not None:
            self._answer_question(question, parse_qs(query))
        else:
            self._answer_json({"error": {"reason": "usage.no-such-page", "message": "There is no such page."}}, 404)

    def end_headers(self) -> None:
        """Add what holds for every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def _refused(self) -> str | None:
        """Return why this request is none of our page's, nor typed by a person; None if it is."""
        if not self.names_this_machine():
            return "This page is for this machine; open it as localhost or 127.0.0.1."
        if self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            return "A page elsewhere has asked for this; type the address yourself."
        if self.headers.get("Origin", ours := f"http://{self.headers['Host']}") != ours:
            return "A page elsewhere has asked for this; type the address yourself."
        return None

    def _answer_json(self, document: Any, status: int = 200) -> None:
        self.answer("application/json", json_line(document).encode(), status)

    def _answer_question(self, question: Callable[[Client, Query], Any], query: Query) -> None:
        try:
            self._answer_json(question(self.server.client, query))
        except DecafError as error:
            self._answer_json(_told(error), 400 if isinstance(error, UsageError) else 503)

    def _answer_events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(f"retry: {RETRY_MILLISECONDS}\n\n".encode())
        try:
            self._stream()
        except DecafError as error:
            self.wfile.write(f"event: trouble\ndata: {json_line(_told(error))}\n\n".encode())

    def _stream(self) -> None:
        """Tell events until either side ends it. Raises DecafError."""
        if not self.server.streams.acquire(blocking=False):
            raise TryAgain("monitor.too-many-pages", f"{STREAMS_AT_MOST} pages of this node are open; close one.")
        instance, _, after = self.headers.get("Last-Event-ID", "").rpartition(":")
        try:
            with closing(self.server.client.watch(instance, int(after) if NUMBER.fullmatch(after) else 0)) as events:
                for event in events:
                    lines = f"id: {event.instance}:{event.sequence}\ndata: {json_line(event_document(event))}\n\n"
                    self.wfile.write(lines.encode())
        finally:
            self.server.streams.release()


def _rounds(client: Client, query: Query) -> Any:
    before, limit = _number(query, "before", 0), _number(query, "limit", ROUNDS_LIMIT)
    return {"rounds": [asdict(row) for row in client.rounds(before, min(max(limit, 1), ROUNDS_LIMIT))]}


def _number(query: Query, name: str, default: int) -> int:
    text = query.get(name, [str(default)])[0]
    if NUMBER.fullmatch(text) is None:
        raise UsageError("usage.bad-number", f"{name} is a whole number.")
    return int(text)


QUESTIONS: dict[str, Callable[[Client, Query], Any]] = {
    "/status": lambda client, query: asdict(client.status()),
    "/peers": lambda client, query: {"peers": [asdict(peer) for peer in client.peers()]},
    "/rounds": _rounds,
    "/topology": lambda client, query: asdict(client.topology()),
    "/alerts": lambda client, query: {"alerts": [asdict(alert) for alert in client.alerts()]},
}


def _told(error: DecafError) -> Any:
    return {"error": {"reason": error.reason, "message": error.message}}


@cache
def page() -> dict[str, tuple[str, bytes]]:
    """Return the files of the page, by path: kind and content."""
    folder = Path(__file__).with_name("page")
    found = {
        f"/{file.relative_to(folder)}": (KINDS[file.suffix], file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.suffix in KINDS
    }
    return {"/": found["/index.html"], **found}
