"""What two daemons make of a link, beside a plain gRPC stream on the same link; and how well a limit is kept.

- **links**: each end is a host of its own, a network namespace. Between them is the kernel's bridge, thinned to
  1 Gbit/s, or a switch in user space that delays every frame, so that an answer takes 10 or 40 ms. In turns, both ways
  at once: two daemons, as in ``exchange``, and two processes that send the same bytes over one gRPC stream with the
  same TLS, hashed and written as they come.
- **limit**: a daemon with ``limits.upload_bytes_per_second`` and four neighbours, which take turns: the bytes that the
  bridge passes on from it to each of them, in windows of two seconds in which all four are being sent to, with all
  that TLS and TCP add.

Prints tables and writes benchmarks/results/links.json. Run as root.

    python -m benchmarks.links [--mb 64] [--turns 3]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.exchange import MIB, ROUNDS, both_ways, exchanging, fetch, mixed, plain, serve
from benchmarks.machine import machine
from tests.daemon.network_lab import ALONE, build, run, within
from tests.daemon.processes import Daemon, mesh
from tests.e2e.reliability.hosts import hosts
from tests.e2e.reliability.switch import Link, Network

RESULTS = Path(__file__).parent / "results" / "links.json"
DELAYS = {"10 ms": 0.005, "40 ms": 0.020}  # each way, in seconds
THIN = "1 Gbit/s"
PIECE = MIB // 4
LIMIT_BYTES = 8_000_000
LIMITED_MIB = 16
NEIGHBOURS = ("b", "c", "d", "e")
SAMPLE_SECONDS, GAP_SAMPLES, WINDOW_SAMPLES = 0.25, 4, 8
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def on_link(name: str, size: int, turns: int) -> dict[str, list[float]]:
    """Return the seconds of each exchange between the hosts a and b, ours and over a plain stream."""
    if name == THIN:
        build("a", "b")
        for host in "ab":
            shape = ("tbf", "rate", "1gbit", "burst", "256k", "latency", "50ms")
            run(*within(host), "tc", "qdisc", "add", "dev", "eth0", "root", *shape)
        return in_turns(size, turns)
    with hosts("a", "b") as both:
        for host in "ab":
            both.plug_in(host)
        both.set(Network(dict.fromkeys("ab", Link(delay=DELAYS[name]))))
        return in_turns(size, turns)


def in_turns(size: int, turns: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"decaf-node": [], "plain gRPC": []}
    for _ in range(turns):
        with mesh() as make:
            one = on_host(make, "a", 1, size)
            other = on_host(make, "b", 2, size, one)
            times["decaf-node"] += both_ways(one, other, size)
        times["plain gRPC"] += plain(size, PIECE, "10.77.0.2", serve_on_b, fetch_on_a)
    return times


def on_host(make: Any, host: str, number: int, size: int, *peers: Daemon, **limits: int) -> Daemon:
    listen = {"address": f"10.77.0.{number}"}
    return exchanging(make, host, size, float(number), *peers, within=within(host), listen=listen, limits=limits)


def fetch_on_a(*given: Any) -> tuple[float, str]:
    """Do it in a process that is on the host."""
    with ProcessPoolExecutor(1, get_context("spawn"), enter, ("a",)) as process:
        return process.submit(fetch, *given).result()


def serve_on_b(*given: Any) -> None:
    enter("b")
    serve(*given)


def enter(host: str) -> None:
    """Make the host's network that of this process."""
    with Path("/run/netns", host).open() as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network of {host}")


def limited(size: int) -> list[list[float]]:
    """Return the bytes that each neighbour of a limited daemon got in a second, see ``windows``."""
    build("a", *NEIGHBOURS)
    count()
    samples = []
    with mesh() as make:
        first = on_host(make, "a", 1, size, upload_bytes_per_second=LIMIT_BYTES)
        for number, host in enumerate(NEIGHBOURS, 2):
            on_host(make, host, number, size, first)
        while len(mixed(first, len(NEIGHBOURS) * size)) <= ROUNDS:
            time.sleep(SAMPLE_SECONDS)
            samples.append((time.monotonic(), counted()))
    return windows(samples)


def count() -> None:
    """Let the bridge count what it passes on from a to each of its neighbours."""
    run("nft", "add table bridge seen")
    run("nft", "add chain bridge seen passed { type filter hook forward priority 0; }")
    for host in NEIGHBOURS:
        run("nft", f'add rule bridge seen passed iifname "to-a" oifname "to-{host}" counter')


def counted() -> list[int]:
    """Return the bytes so far, in the order of the neighbours."""
    words = ("nft", "-j", "list", "chain", "bridge", "seen", "passed")
    listed = subprocess.run(words, check=True, capture_output=True)  # noqa: S603 - our own words
    rules = [entry["rule"]["expr"] for entry in json.loads(listed.stdout)["nftables"] if "rule" in entry]
    return [part["counter"]["bytes"] for rule in rules for part in rule if "counter" in part]


def windows(samples: Sequence[tuple[float, Sequence[int]]]) -> list[list[float]]:
    """Return a second's bytes of each window in which all neighbours are being sent to."""
    moments, counts = zip(*samples, strict=True)
    passing = [[now - then > PIECE // 2 for then, now in zip(*pair, strict=True)] for pair in pairwise(counts)]

    def busy(step: int) -> bool:
        """Whether each neighbour gets more than acknowledgements within a second before and within a second after."""
        around = passing[max(0, step - GAP_SAMPLES) : step + 1], passing[step : step + GAP_SAMPLES + 1]
        return all(all(map(any, zip(*part, strict=True))) for part in around)

    seen = []
    for start in range(0, len(passing) - WINDOW_SAMPLES + 1, WINDOW_SAMPLES):
        end = start + WINDOW_SAMPLES
        if all(map(busy, range(start, end))):
            seconds = moments[end] - moments[start]
            seen.append([(now - then) / seconds for then, now in zip(counts[start], counts[end], strict=True)])
    return seen


def show(size: int, times: dict[str, dict[str, list[float]]], seen: list[list[float]]) -> None:
    table = Table("link", "both ways at once", "median", "fastest to slowest", "Mbit/s each way", "beside plain")
    for link, methods in times.items():
        best = statistics.median(methods["plain gRPC"])
        for name, seconds in methods.items():
            median, spread = statistics.median(seconds), f"{min(seconds):.2f} - {max(seconds):.2f} s"
            rate = 8 * size / median / 1e6
            table.add_row(link, name, f"{median:.2f} s", spread, f"{rate:.0f}", f"{best / median:.0%}")
    Console().print(table)
    if not seen:
        print("There was no window in which all neighbours were being sent to.")
        return
    rates = [sum(window) / LIMIT_BYTES for window in seen]
    shares = [share / statistics.fmean(window) for window in seen for share in window]
    print(
        f"Limited to {LIMIT_BYTES / 1e6:g} MB/s, with {len(NEIGHBOURS)} neighbours: in {len(seen)} windows "
        f"{statistics.median(rates):.1%} of that in the median ({min(rates):.1%} to {max(rates):.1%}). "
        f"Each neighbour got {min(shares):.0%} to {max(shares):.0%} of an even share."
    )


def apart(what: str, mb: int, turns: int) -> Any:
    """Return what this script finds out in a namespace that holds all its hosts."""
    words = [sys.executable, "-m", "benchmarks.links", "--only", what, "--mb", str(mb), "--turns", str(turns)]
    done = subprocess.run([*ALONE, *words], check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own words
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=64, help="MiB of a snapshot")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only and os.getpid() != 1:
        parser.error("--only is for the run that has namespaces of its own: it makes hosts, and mounts on /run")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    size = given.mb * MIB
    if given.only == "limit":
        print(json.dumps(limited(LIMITED_MIB * MIB)))
    elif given.only:
        print(json.dumps(on_link(given.only, size, given.turns)))
    else:
        times = {link: apart(link, given.mb, given.turns) for link in (THIN, *DELAYS)}
        seen = apart("limit", given.mb, given.turns)
        document = {"machine": machine(), "bytes": size, "seconds": times, "limit": LIMIT_BYTES, "limited": seen}
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")
        show(size, times, seen)


if __name__ == "__main__":
    main()
