"""The server of the page, without a browser and without a daemon: what it gives, to whom, and its bounds."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from decaf_node.daemon import local_http
from decaf_node.daemon.client import Client
from decaf_node.daemon.dashboard import CONNECTIONS_AT_MOST, HEADERS, STREAMS_AT_MOST, DashboardServer, page
from decaf_node.daemon.local_http import REQUEST_LIMIT_BYTES
from decaf_node.errors import TryAgain

OURS = {path: text.decode() for path, (_, text) in page().items() if not path.startswith("/uplot/")}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[DashboardServer]:
    served = DashboardServer(0, Client(tmp_path / "control.sock"), "--port")
    yield served
    await served.close()


def ask(server: DashboardServer, path: str, method: str, headers: dict[str, str]) -> tuple[int, Any, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20.0)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


async def asked(server: DashboardServer, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, str]:
    return await asyncio.to_thread(ask, server, path, method, headers)


async def test_each_file_is_given_with_what_keeps_other_pages_out(server: DashboardServer) -> None:
    for path, (kind, content) in page().items():
        status, headers, text = await asked(server, path)
        assert (status, headers["Content-Type"], text) == (200, kind, content.decode()), path
        assert {name: headers[name] for name in HEADERS} == HEADERS
        assert "Access-Control-Allow-Origin" not in headers
    assert (await asked(server, "/"))[2] == OURS["/index.html"]
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
    assert "unsafe" not in policy


def test_the_page_needs_nothing_from_elsewhere_and_reads_no_markup() -> None:
    assert len(OURS) > 10
    for path, text in OURS.items():
        assert set(re.findall(r"https?://[^\s\"]+", text)) <= {"http://www.w3.org/2000/svg"}, path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|DOMParser", text), path
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=", OURS["/index.html"])


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:7437"},
        {"Host": ""},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
    ],
)
async def test_what_a_page_elsewhere_asks_is_refused(server: DashboardServer, headers: dict[str, str]) -> None:
    for path in ("/", "/events", "/status", "/main.js"):
        status, answered, text = await asked(server, path, **headers)
        assert (status, json.loads(text)["error"]["reason"]) == (403, "monitor.elsewhere")
        assert answered["Cross-Origin-Resource-Policy"] == "same-origin"


async def test_what_a_person_types_and_our_own_page_asks_is_answered(server: DashboardServer) -> None:
    here = f"localhost:{server.port}"
    for headers in (
        {"Host": here},
        {"Host": f"[::1]:{server.port}"},
        {"Host": "localhost:7438"},  # the other end of ssh -L
        {"Host": here, "Origin": f"http://{here}", "Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
    ):
        assert (await asked(server, "/", **headers))[0] == 200, headers


async def test_nothing_can_be_changed(server: DashboardServer) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
        assert (await asked(server, "/status", method))[0] == 501


async def test_what_is_not_there_is_said(server: DashboardServer) -> None:
    for path in ("/none", "/../errors.py", "/page/main.js", "/uplot/LICENSE"):
        status, _, text = await asked(server, path)
        assert (status, json.loads(text)["error"]["reason"]) == (404, "usage.no-such-page"), path
    for query in ("before=x", "before=-1", "limit=1e3", f"limit={'9' * 16}"):
        status, _, text = await asked(server, f"/rounds?{query}")
        assert (status, json.loads(text)["error"]["reason"]) == (400, "usage.bad-number"), query


async def test_a_daemon_that_does_not_answer_is_said(server: DashboardServer) -> None:
    for path in ("/status", "/peers", "/rounds", "/topology", "/alerts"):
        status, _, text = await asked(server, path)
        assert (status, json.loads(text)["error"]["reason"]) == (503, "daemon.not-running"), path
    status, headers, text = await asked(server, "/events")
    assert (status, headers["Content-Type"]) == (200, "text/event-stream")
    assert re.fullmatch(r'retry: [0-9]+\n\nevent: trouble\ndata: {"error": {"reason": "daemon.not-running".*\n\n', text)


async def test_too_many_open_pages_are_refused(server: DashboardServer) -> None:
    for _ in range(STREAMS_AT_MOST):
        assert server.streams.acquire(blocking=False)
    assert "monitor.too-many-pages" in (await asked(server, "/events"))[2]
    server.streams.release()
    for _ in range(2):  # a place is given back
        assert "daemon.not-running" in (await asked(server, "/events"))[2]


async def test_too_many_connections_are_dropped_and_make_room_again(server: DashboardServer) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CONNECTIONS_AT_MOST)]
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        await asked(server, "/")
    for connection in silent:
        connection.close()
    for _ in range(100):
        try:
            assert (await asked(server, "/"))[0] == 200
            break
        except (ConnectionError, http.client.HTTPException):
            await asyncio.sleep(0.05)
    else:
        raise AssertionError("no room came back")


async def test_a_request_is_bounded_in_size_and_time(server: DashboardServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        await asked(server, "/", Long="x" * REQUEST_LIMIT_BYTES)
    monkeypatch.setattr(local_http, "SILENT_SECONDS", 0.2)

    def drip() -> bytes:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20.0) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            return connection.recv(100)

    assert await asyncio.to_thread(drip) == b"", "dropped without a word"


async def test_a_port_that_is_taken_is_said(server: DashboardServer, tmp_path: Path) -> None:
    with pytest.raises(TryAgain, match=rf"Port {server.port} of 127.0.0.1 \(monitor.dashboard_port\)") as caught:
        DashboardServer(server.port, Client(tmp_path / "control.sock"), "monitor.dashboard_port")
    assert caught.value.reason == "monitor.port-in-use"
