"""What two daemons make of a link, beside a plain gRPC stream on the same link; and how well a limit is kept.

- **links**: each end is a host of its own, a network namespace. Between them is the kernel's bridge, thinned to
  1 Gbit/s, or a switch in user space that delays every frame, so that an answer takes 10 or 40 ms. In turns, both ways
  at once: two daemons, as in ``exchange``, and two processes that send the same bytes over one gRPC stream with the
  same TLS, hashed and written as they come.
- **limit**: a daemon with ``limits.upload_bytes_per_second`` and four neighbours, which take turns: what it sends in a
  second of its exchanges, and when its snapshot is there with the first and with the last of the four.

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
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.exchange import MIB, ROUNDS, both_ways, exchanging, fetch, mixed, plain, serve, wait_for
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
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def on_link(name: str, size: int, turns: int) -> dict[str, list[float]]:
    """Return the seconds of each exchange between the hosts a and b, ours and over a plain stream."""
    if name == THIN:
        build("a", "b")
        for host in "ab":
            shape = ("tbf", "rate", "1gbit", "burst", "256k", "latency", "50ms")
            run("ip", "netns", "exec", host, "tc", "qdisc", "add", "dev", "eth0", "root", *shape)
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


def limited(size: int) -> dict[str, Any]:
    """Return what a limited daemon has sent in each second of its exchanges, and how long its neighbours waited."""
    build("a", *NEIGHBOURS)
    with mesh() as make:
        first = on_host(make, "a", 1, size, upload_bytes_per_second=LIMIT_BYTES)
        others = [on_host(make, host, number, size, first) for number, host in enumerate(NEIGHBOURS, 2)]
        wait_for(lambda: all(len(mixed(one, len(NEIGHBOURS) * size)) > ROUNDS for one in (first, *others)))
        seen = [mixed(one, len(NEIGHBOURS) * size)[1 : 1 + ROUNDS] for one in (first, *others)]
    rates = [round.sent_bytes / round.exchange_seconds for round in seen[0]]
    waits = [[round.exchange_seconds for round in rounds] for rounds in zip(*seen[1:], strict=True)]
    return {
        "limit": LIMIT_BYTES,
        "rates": rates,
        "first": [min(one) for one in waits],
        "last": [max(one) for one in waits],
    }


def show(size: int, times: dict[str, dict[str, list[float]]], limit: dict[str, Any]) -> None:
    table = Table("link", "both ways at once", "median", "fastest to slowest", "Mbit/s each way", "beside plain")
    for link, methods in times.items():
        best = statistics.median(methods["plain gRPC"])
        for name, seconds in methods.items():
            median, spread = statistics.median(seconds), f"{min(seconds):.2f} - {max(seconds):.2f} s"
            rate = 8 * size / median / 1e6
            table.add_row(link, name, f"{median:.2f} s", spread, f"{rate:.0f}", f"{best / median:.0%}")
    Console().print(table)
    rates = [rate / limit["limit"] for rate in limit["rates"]]
    print(
        f"Limited to {limit['limit'] / 1e6:g} MB/s, a daemon with {len(NEIGHBOURS)} neighbours has sent "
        f"{min(rates):.1%} to {max(rates):.1%} of that in an exchange. The first of them had its snapshot after "
        f"{statistics.median(limit['first']):.1f} s, the last after {statistics.median(limit['last']):.1f} s."
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
        limit = apart("limit", given.mb, given.turns)
        show(size, times, limit)
        document = {"machine": machine(), "bytes": size, "seconds": times, "limit": limit}
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
