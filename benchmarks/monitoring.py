"""What watching a node costs: memory, the processor between rounds, slow watchers, and a history of a million rounds.

- **between rounds**: nine daemons with scripted trainers, each the neighbour of all others (``topology = "full"``),
  with the defaults of probing (``round.seconds = 300``). One of them is watched by ten, scraped every 15 s as
  Prometheus does, and has its web page open: its resident memory after a mix with all eight, and its share of a core
  while it trains, before and with all that.
- **watchers**: one daemon with rounds as quick as it can, and ten watchers that read, that read one event in half a
  second, or that never read: what the daemon spends on a round, in turns, beside none.
- **history**: a page of 100 rounds, newest and from the middle, of a hundred rounds and of a million.

Prints tables and writes benchmarks/results/monitoring.json.

    python -m benchmarks.monitoring [--window 30] [--turns 3] [--history 1000000]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import grpc

from benchmarks.machine import machine, resident
from decaf_node.daemon.reports import StatusReport
from decaf_node.errors import DecafError
from decaf_node.v1 import monitor_pb2, monitor_pb2_grpc
from tests.cli.reports import round_report
from tests.daemon.processes import Daemon, mesh

RESULTS = Path(__file__).parent / "results" / "monitoring.json"
NEIGHBOURS = 8
WATCHERS = 10
SCRAPE_SECONDS = 15.0
ASK_SECONDS = 2.5  # at most so often the page asks, after an event
SNAPSHOT_BYTES = 1_000_000
MEMORY_TARGET_MB, PROCESSOR_TARGET = 150.0, 0.02
QUICK: dict[str, dict[str, Any]] = {"round": {"steps": 1}, "script": {"seconds": 0.01}}
SLOW_SECONDS = 0.5  # that a slow watcher takes for an event
METRICS = re.compile(r"Metrics for Prometheus are at (http://\S+/metrics)")
PAGE = re.compile(r"The page of this node is at (http://\S+/)")
TICKS = os.sysconf("SC_CLK_TCK")

Kind = Callable[[Daemon], Any]


def spent(daemon: Daemon) -> float:
    """Return the seconds of the processor that the daemon has taken, without its trainer."""
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def held(daemon: Daemon) -> dict[str, float]:
    """Return its resident memory now and at its most, in MB."""
    assert daemon.process is not None
    kinds = {"now_mb": "VmRSS", "peak_mb": "VmHWM"}
    return {name: resident(daemon.process.pid, kind) / 1e6 for name, kind in kinds.items()}


def share(daemon: Daemon, seconds: float) -> float:
    """Return the part of one core that it takes, over so long."""
    before, began = spent(daemon), time.monotonic()
    time.sleep(seconds)
    return (spent(daemon) - before) / (time.monotonic() - began)


# --- watchers --------------------------------------------------------------------------------------------------------


@contextmanager
def reading(daemon: Daemon, pause: float = 0.0) -> Iterator[None]:
    """One watcher that reads, as ``decaf-node watch`` does."""
    ended = threading.Event()

    def read() -> None:
        try:
            for _ in client.watch():
                if ended.wait(pause) if pause else ended.is_set():
                    return
        except DecafError:
            assert ended.is_set(), "the daemon has ended the watch"

    with daemon.client() as client:
        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield
        finally:
            ended.set()
    thread.join()


@contextmanager
def silent(daemon: Daemon) -> Iterator[None]:
    """One watcher that asks and never reads, with as little as gRPC lets it take unread."""
    options = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0)]
    with grpc.insecure_channel(f"unix:{daemon.runtime}/control.sock", options) as channel:
        call = monitor_pb2_grpc.MonitorStub(channel).Watch(monitor_pb2.WatchRequest())
        yield
        call.cancel()


@contextmanager
def scraped(daemon: Daemon) -> Iterator[None]:
    """A Prometheus, as far as the daemon is concerned."""
    ended = threading.Event()
    place = said(daemon, METRICS)

    def scrape() -> None:
        while True:
            with urllib.request.urlopen(place, timeout=30.0) as answer:  # noqa: S310 - what the daemon has said
                assert b"decaf_node_round" in answer.read()
            if ended.wait(SCRAPE_SECONDS):
                return

    thread = threading.Thread(target=scrape)
    thread.start()
    yield
    ended.set()
    thread.join()


@contextmanager
def page_open(daemon: Daemon) -> Iterator[None]:
    """A browser that shows the page: it has asked for all of it, reads what happens, and asks again."""
    place = said(daemon, PAGE)

    def ask(*paths: str) -> None:
        for path in paths:
            with urllib.request.urlopen(place + path, timeout=30.0) as answer:  # noqa: S310 - what the daemon has said
                answer.read()

    ask("", "status", "peers", "alerts", "rounds", "topology")
    events = urllib.request.urlopen(f"{place}events", timeout=60.0)  # noqa: S310
    ended = threading.Event()

    def read() -> None:
        asked = time.monotonic()
        while not ended.is_set() and (line := events.readline()):
            if line.startswith(b"data:") and time.monotonic() - asked >= ASK_SECONDS:
                asked = time.monotonic()
                ask("status", "peers", "alerts")

    thread = threading.Thread(target=read)
    thread.start()
    yield
    ended.set()  # the next heartbeat comes within seconds
    thread.join()
    events.close()


def said(daemon: Daemon, place: re.Pattern[str]) -> str:
    """Return the address that the daemon has written into its log."""
    found = place.search(daemon.log())
    assert found, daemon.log()
    return found[1]


# --- what is measured ------------------------------------------------------------------------------------------------


def has_mixed_with_all(status: StatusReport) -> bool:
    """Tell whether all neighbours were in the last mix."""
    last = status.last_round
    return last is not None and len({edge.node for edge in last.edges}) == NEIGHBOURS


def between_rounds(window: float) -> dict[str, Any]:
    """Nine nodes with long rounds: memory, and the processor while one of them trains."""
    settings: dict[str, Any] = {
        "mesh": {"topology": "full"},
        "monitor": {"metrics": "127.0.0.1:0", "dashboard": True, "dashboard_port": 0},
        "round": {"steps": 0, "seconds": 300.0, "wait_ceiling": 30.0},
        "limits": {"redial_backoff": 30.0},
        "script": {"seconds": 2 * window + 20, "bulk": SNAPSHOT_BYTES, "drift": 0.1},
    }
    with mesh() as make, ExitStack() as stack:
        a = make("a", **settings).start()
        for number in range(NEIGHBOURS):
            make(f"n{number}", a, **settings).start()
        begun = a.until(lambda status: has_mixed_with_all(status) and status.phase == "training", 40 * window).round
        time.sleep(2.0)
        alone = share(a, window)
        for _ in range(WATCHERS):
            stack.enter_context(reading(a))
        stack.enter_context(scraped(a))
        stack.enter_context(page_open(a))
        time.sleep(2.0)
        watched = share(a, window)
        status = a.status()
        assert (status.round, status.phase) == (begun, "training"), status
        return {"alone": alone, "watched": watched, "round": begun, **held(a)}


KINDS: dict[str, Kind | None] = {
    "none": None,
    "ten that read": reading,
    "ten slow ones": lambda daemon: reading(daemon, SLOW_SECONDS),
    "ten that never read": silent,
}


def watchers(window: float, turns: int) -> dict[str, Any]:
    """One daemon with quick rounds: what it spends on each, with ten watchers of a kind, in turns."""
    costs: dict[str, list[float]] = {name: [] for name in KINDS}
    with mesh() as make:
        a = make("a", **QUICK).start()
        a.until(lambda status: status.round >= 20)
        begun = held(a)["now_mb"]
        for _ in range(turns):
            for name, kind in KINDS.items():
                with ExitStack() as stack:
                    for _ in range(WATCHERS if kind else 0):
                        assert kind is not None
                        stack.enter_context(kind(a))
                    time.sleep(1.0)
                    rounds, before = a.status().round, spent(a)
                    time.sleep(window / 2)
                    costs[name].append(1000 * (spent(a) - before) / (a.status().round - rounds))
        grown = held(a)["now_mb"] - begun
    none = statistics.median(costs["none"])
    rows = {name: {"ms_a_round": times, "ratio": statistics.median(times) / none} for name, times in costs.items()}
    return {"kinds": rows, "grown_mb": grown}


def fill(daemon: Daemon, rounds: int) -> None:
    """Write so many rounds into the history of a daemon that does not run, with the edges of eight neighbours each."""
    report = round_report(1)
    document = asdict(replace(report, edges=report.edges * NEIGHBOURS))
    rows = ((number, 1, json.dumps({**document, "round": number})) for number in range(1, rounds + 1))
    with closing(sqlite3.connect(daemon.state / "rounds.sqlite")) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executemany("INSERT INTO rounds (round, saved, report) VALUES (?, ?, ?)", rows)


def history(rounds: int, pages: int = 200) -> dict[str, Any]:
    """Two daemons, of a hundred rounds and of many: how long a page of each takes, in turns."""
    sizes = (100, rounds)
    times: dict[str, list[float]] = {}
    with mesh() as make:
        daemons = {}
        for size in sizes:
            daemon = make(
                f"of{size}", training={"trainer": "external"}, store={"history": 2 * size, "save_every": 0}
            ).start()
            daemon.until(lambda status: status.phase != "stopping")
            daemon.end()
            fill(daemon, size)
            daemons[size] = daemon.start()
            daemon.until(lambda status: True)
        for _ in range(pages):
            for size, daemon in daemons.items():
                for place, before in (("newest", 0), ("middle", size // 2 + 50)):
                    with daemon.client() as client:
                        client.status()
                        began = time.perf_counter()
                        page = client.rounds(before, 100)
                        times.setdefault(f"{place} of {size:,}", []).append(1000 * (time.perf_counter() - began))
                    assert len(page) == min(100, size if not before else before - 1)
        memory = {f"{size:,}": held(daemon)["now_mb"] for size, daemon in daemons.items()}
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians[f"newest of {rounds:,}"] / medians["newest of 100"]
    return {"median_ms": medians, "ratio_newest": ratio, "pages": pages, "resident_mb": memory}


def show(results: dict[str, Any]) -> None:
    """Print what was found."""
    quiet, watched, past = results["between_rounds"], results["watchers"], results["history"]
    print(f"{NEIGHBOURS} neighbours, {WATCHERS} watchers, metrics scraped every {SCRAPE_SECONDS:g} s, the page open:")
    most = f"at most {quiet['peak_mb']:.1f} MB (target {MEMORY_TARGET_MB:g})"
    print(f"  resident memory       {quiet['now_mb']:6.1f} MB, {most}")
    print(f"  between rounds        {100 * quiet['watched']:6.2f} % of a core (target {100 * PROCESSOR_TARGET:g})")
    print(f"  the same, unwatched   {100 * quiet['alone']:6.2f} %")
    print("The daemon's processor time for a round, beside that with no watcher:")
    for name, row in watched["kinds"].items():
        low, median, high = min(row["ms_a_round"]), statistics.median(row["ms_a_round"]), max(row["ms_a_round"])
        print(f"  {name:21} {median:6.2f} ms ({low:.2f} to {high:.2f}), {row['ratio']:.2f} times")
    print(f"  its memory grew by {watched['grown_mb']:.1f} MB meanwhile")
    print("A page of 100 rounds:")
    for name, milliseconds in past["median_ms"].items():
        print(f"  {name:21} {milliseconds:6.2f} ms")
    print(f"  the newest of many beside the newest of a hundred: {past['ratio_newest']:.2f} times")


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window", type=float, default=30.0, help="seconds of each measurement")
    parser.add_argument("--turns", type=int, default=3, help="of each kind of watcher")
    parser.add_argument("--history", type=int, default=1_000_000, help="rounds of the long history")
    options = parser.parse_args()
    results = {
        "machine": machine(),
        "window_seconds": options.window,
        "between_rounds": between_rounds(options.window),
        "watchers": watchers(options.window, options.turns),
        "history": history(options.history),
    }
    show(results)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
