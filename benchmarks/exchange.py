"""How fast two daemons exchange snapshots, beside a plain gRPC stream; what that costs in memory and in answers.

- **speed**: two daemons with scripted trainers, mutual TLS, each sending the other a snapshot from disk to disk at the
  same time: the time from the moment the second has trained to its mix, in which snapshots are also read, hashed, and
  checked. Beside it, in turns, two processes that do little else: the same bytes both ways over one gRPC stream with
  the same TLS, hashed and written as they come, on gRPC's own loop. Both write files that were not there.
- **answers**: what health checks on the control socket take, one every 10 ms, while a daemon exchanges with four
  neighbours. These are on this machine too, and give way (``nice``): they would have processors of their own.
- **memory**: by how much that daemon's resident memory grows meanwhile.

Prints tables and writes benchmarks/results/exchange.json. It needs some forty times the snapshot on the disk.

    python -m benchmarks.exchange [--mb 64] [--turns 3]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine, resident
from decaf_node.daemon.channels import CHANNEL_OPTIONS
from decaf_node.daemon.identity import load_identity
from decaf_node.daemon.papers import load_papers
from decaf_node.daemon.reports import RoundReport
from decaf_node.daemon.security import MutualTls
from tests.daemon.processes import Daemon, mesh
from tests.daemon.trusted import Authority

RESULTS = Path(__file__).parent / "results" / "exchange.json"
MIB = 1024 * 1024
ROUNDS = 3  # of a turn
NEIGHBOURS = 4
EVERY_SECONDS = 0.01  # a health check
PATIENCE = 600.0
PLAIN = {"plain gRPC, 1 MiB": MIB, "plain gRPC, 256 KiB": MIB // 4}  # by their messages; ours are the latter
METHOD = "/plain.Stream/Exchange"
Serve = Callable[[Path, str, int, Connection], None]
Fetch = Callable[[Path, str, int, Path], tuple[float, str]]


@dataclass(frozen=True)
class Answers:
    """Milliseconds that health checks took."""

    count: int
    median: float
    p99: float
    slowest: float


def exchanging(
    make: Any,
    name: str,
    size: int,
    value: float,
    *peers: Daemon,
    within: tuple[str, ...] = (),
    limits: Mapping[str, int] = {},
    **settings: Any,
) -> Daemon:
    """Start a daemon that trains next to nothing, and sends snapshots of ``size`` bytes. within: see ``Daemon``."""
    daemon: Daemon = make(
        name,
        *peers,
        script={"bulk": size, "value": value, "drift": value, "seconds": 1.0},  # never two the same snapshot
        round={"steps": 3, "overlap": False, "wait_floor": PATIENCE, "wait_ceiling": PATIENCE},
        store={"save_every": PATIENCE},
        limits={"spool_bytes": 64 * size, **limits},  # what is not saved yet stays there
        mesh={"topology": "full"},
        **settings,
    )
    daemon.within = within
    daemon.start().until(lambda status: status.address != "", PATIENCE)
    return daemon


def mixed(daemon: Daemon, least: int) -> list[RoundReport]:
    """Return the rounds in which so many bytes have come."""
    return [round for round in daemon.rounds() if round.received_bytes >= least]


def wait_for(holds: Callable[[], bool]) -> None:
    """Look once a second: it is the cores that are looked at."""
    while not holds():
        time.sleep(1.0)


def ours(size: int) -> list[float]:
    """Return the seconds of so many exchanges, but for the first."""
    with mesh() as make:
        one = exchanging(make, "a", size, 1.0)
        return both_ways(one, exchanging(make, "b", size, 2.0, one), size)


def both_ways(one: Daemon, other: Daemon, size: int) -> list[float]:
    """Wait for so many exchanges of two daemons, and return their seconds, but for the first."""
    wait_for(lambda: min(len(mixed(one, size)), len(mixed(other, size))) > ROUNDS)
    pairs = list(zip(mixed(one, size), mixed(other, size), strict=False))[1 : 1 + ROUNDS]
    # who has trained first has also waited for the other
    return [min(a.exchange_seconds, b.exchange_seconds) for a, b in pairs]


async def pour(path: Path, piece: int) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(piece):
            yield block


async def drink(blocks: Any, path: Path) -> str:
    """Write what comes; return its digest."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        async for block in blocks:
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def papers_of(state: Path) -> MutualTls:
    return MutualTls(load_papers(state / "identity", load_identity(state / "identity"), time.time()), None)


def serve(state: Path, address: str, piece: int, pipe: Connection) -> None:
    """Answer one stream at a time with the state's file, until the pipe closes."""

    numbers = itertools.count()

    async def exchange(blocks: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        drinking = asyncio.create_task(drink(blocks, state / f"came-{next(numbers)}"))
        async for block in pour(state / "file", piece):
            yield block
        pipe.send(await drinking)

    async def run() -> None:
        server = grpc.aio.server(options=CHANNEL_OPTIONS)
        handler: Any = grpc.stream_stream_rpc_method_handler(exchange)
        service = grpc.method_handlers_generic_handler("plain.Stream", {"Exchange": handler})
        server.add_generic_rpc_handlers((service,))
        pipe.send(papers_of(state).listen(server, f"{address}:0"))
        await server.start()
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        await server.stop(0)

    asyncio.run(run())


def fetch(state: Path, address: str, piece: int, came: Path) -> tuple[float, str]:
    """Exchange the state's file for what is served there, into a new file; return the seconds, and its digest."""

    async def exchange() -> str:
        line = await papers_of(state).line(address, CHANNEL_OPTIONS)
        async with line.channel as channel:
            call: Any = channel.stream_stream(METHOD)
            return await drink(call(pour(state / "file", piece)), came)

    start = time.perf_counter()
    digest = asyncio.run(exchange())
    return time.perf_counter() - start, digest


def plain(size: int, piece: int, address: str = "127.0.0.1", serve: Serve = serve, fetch: Fetch = fetch) -> list[float]:
    """Return the seconds of each exchange over a plain stream. serve, fetch: do what those here do, elsewhere."""
    authority, times = Authority(), []
    with tempfile.TemporaryDirectory(prefix="decaf-", dir="/tmp") as folder:
        states = [Path(folder, name) for name in "ab"]
        for number, state in enumerate(states):
            authority.admit(state)
            (state / "file").write_bytes(hashlib.shake_128(bytes([number])).digest(size))
        digests = [hashlib.sha256((state / "file").read_bytes()).hexdigest() for state in states]
        with serving(serve, states[1], address, piece) as pipe:
            there = f"{address}:{pipe.recv()}"
            for number in range(ROUNDS):
                seconds, came = fetch(states[0], there, piece, states[0] / f"came-{number}")
                assert [pipe.recv(), came] == digests
                times.append(seconds)
    return times


@contextmanager
def serving(serve: Serve, state: Path, address: str, piece: int) -> Iterator[Connection]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(state, address, piece, theirs))
    process.start()
    try:
        yield ours
    finally:
        ours.send(None)
        process.join()


def with_neighbours(size: int) -> tuple[float, Answers]:
    """Return by how many MB a daemon grows while it exchanges with four, and how soon it answers meanwhile."""
    with mesh() as make:
        first = exchanging(make, "a", size, 1.0)
        first.until(lambda status: status.round > 1, PATIENCE)
        assert first.process is not None
        Path(f"/proc/{first.process.pid}/clear_refs").write_text("5")  # its peak is that of now
        before = resident(first.process.pid, "VmHWM")
        for number in range(NEIGHBOURS):
            exchanging(make, f"n{number}", size, 2.0 + number, first, within=("nice", "-n", "19"))
        with checking(first) as waited:
            wait_for(lambda: len(mixed(first, NEIGHBOURS * size)) >= ROUNDS)
        grown = (resident(first.process.pid, "VmHWM") - before) / 1e6
    quantiles = statistics.quantiles(waited, n=100)
    return grown, Answers(len(waited), statistics.median(waited), quantiles[98], max(waited))


@contextmanager
def checking(daemon: Daemon) -> Iterator[list[float]]:
    """Ask for its health all the while, whether the check before is answered or not; gives the milliseconds of each."""
    over, waited = threading.Event(), list[float]()
    asked: list[grpc.Future[health_pb2.HealthCheckResponse]] = []

    def check(stub: health_pb2_grpc.HealthStub) -> None:
        due = time.perf_counter()
        while not over.wait(max(0.0, due - time.perf_counter())):
            asked.append(stub.Check.future(health_pb2.HealthCheckRequest(), timeout=PATIENCE))
            asked[-1].add_done_callback(partial(note, due))
            due += EVERY_SECONDS

    def note(due: float, _: grpc.Future[health_pb2.HealthCheckResponse]) -> None:
        waited.append(1000 * (time.perf_counter() - due))

    with grpc.insecure_channel(f"unix:{daemon.runtime / 'control.sock'}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)  # connects
        thread = threading.Thread(target=check, args=(stub,))
        thread.start()
        try:
            yield waited
        finally:
            over.set()
            thread.join()
        for one in asked:
            one.result()  # raises what a check has met
        while len(waited) < len(asked):  # it is noted a little later
            time.sleep(EVERY_SECONDS)


def show(size: int, times: dict[str, list[float]], grown: float, answers: Answers) -> None:
    table = Table("both ways at once", "median", "fastest to slowest", "MB/s each way", "beside the faster plain")
    best = min(statistics.median(times[name]) for name in PLAIN)
    for name, seconds in times.items():
        median = statistics.median(seconds)
        spread = f"{min(seconds):.2f} - {max(seconds):.2f} s"
        table.add_row(name, f"{median:.2f} s", spread, f"{size / median / 1e6:.0f}", f"{best / median:.0%}")
    Console().print(table)
    print(f"A daemon with {NEIGHBOURS} neighbours grows by {grown:.1f} MB while it exchanges with all.")
    print(
        f"A health check meanwhile: {answers.median:.1f} ms, 99 % within {answers.p99:.1f} ms, "
        f"the slowest of {answers.count} {answers.slowest:.0f} ms."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=64, help="MiB of a snapshot")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    size = given.mb * MIB
    times: dict[str, list[float]] = {name: [] for name in ("decaf-node", *PLAIN)}
    for _ in range(given.turns):
        times["decaf-node"] += ours(size)
        for name, piece in PLAIN.items():
            times[name] += plain(size, piece)
    grown, answers = with_neighbours(size)
    show(size, times, grown, answers)
    document = {"machine": machine(), "bytes": size, "seconds": times, "grown_mb": grown, "answers": asdict(answers)}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
