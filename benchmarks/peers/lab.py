"""One turn of one framework between five hosts on this machine, watched from outside. Prints one line of JSON.

    unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private python -m benchmarks.peers.lab \
        MODULE PYTHON FOLDER MIB

Each node has a network namespace of its own, on a switch. So what the switch has got from all of them is what machines
have sent, each byte once, and not what the processes of one node say to each other. Memory is that of all processes of
a node together; pages that several share count once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from benchmarks.peers.rounds import LEARNED, NODES, ROUNDS, SERVER, adapter, ends_of, mark, over, put
from tests.daemon.network_lab import build

PATIENCE = 600.0  # for one step of a round
SETTLE = 1.0  # after training, so that nothing of the round before is measured
EVERY_SECONDS = 0.25  # a look at the memory
ROUNDING = 1e-3  # of numbers below 20, in float32, after some sums
HOSTS = (*NODES, SERVER)


@dataclass(frozen=True)
class Turn:
    """What was measured. seconds: of each round; sent: bytes on the network, of each; error: why there is nothing.

    node: bytes that one node held at most; all: that all did, with the server's, where there is one
    """

    seconds: tuple[float, ...] = ()
    sent: tuple[int, ...] = ()
    node: int = 0
    all: int = 0
    error: str = ""


class Failed(Exception):
    """The framework did not do its rounds."""


def received(net_dev: str) -> dict[str, int]:
    """Return the bytes that each interface has received, by what /proc/net/dev says."""
    lines = (line.partition(":") for line in net_dev.splitlines() if ":" in line)
    return {name.strip(): int(counts.split()[0]) for name, _, counts in lines}


def sent() -> int:
    """Return the bytes that all hosts have sent so far."""
    counts = received(Path("/proc/net/dev").read_text())
    return sum(counts[f"to-{host}"] for host in HOSTS)


def held() -> dict[str, int]:
    """Return the bytes of memory of each host's processes."""
    hosts = {Path("/run/netns", host).stat().st_ino: host for host in HOSTS}
    total = dict.fromkeys(HOSTS, 0)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended
            if host := hosts.get((process / "ns" / "net").stat().st_ino):
                total[host] += proportional((process / "smaps_rollup").read_text())
    return total


def proportional(rollup: str) -> int:
    """Return the bytes that /proc/PID/smaps_rollup says are a process's own part; one that ends has none."""
    kilobytes = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")]
    return 1024 * sum(kilobytes)


class Memory:
    """The most that was held while it was watched."""

    def __init__(self) -> None:
        self.node = 0
        self.all = 0
        self.over = threading.Event()

    def watch(self) -> None:
        while not self.over.wait(EVERY_SECONDS):
            now = held()
            self.node = max(self.node, *(now[node] for node in NODES))
            self.all = max(self.all, sum(now.values()))

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self.watch)
        thread.start()
        try:
            yield
        finally:
            self.over.set()
            thread.join()


def come(folder: Path, what: str, round: int, alive: Callable[[], bool]) -> list[str]:
    """Wait until all nodes have come so far; return what they say."""
    marks = [mark(folder, what, round, node) for node in NODES]
    end = time.monotonic() + PATIENCE
    while not all(each.exists() for each in marks):
        if not alive():
            raise Failed(f"It ended before all had {what} in round {round}.")
        if time.monotonic() > end:
            raise Failed(f"Not all had {what} in round {round} within {PATIENCE:.0f} s.")
        time.sleep(0.01)
    return [each.read_text() for each in marks]


def exchange(folder: Path, round: int, begun: Sequence[float], alive: Callable[[], bool]) -> float:
    """Let the trained nodes aggregate; return the seconds until the last had done so. begun: the ends at first."""
    began = time.monotonic()
    put(mark(folder, "go", round), "")
    said = [json.loads(text) for text in come(folder, "holds", round, alive)]
    for first, *values in zip(begun, *(ends for _, *ends in said), strict=True):
        mean = first + round * fmean(LEARNED.values())
        if round > 1 and max(abs(value - mean) for value in values) > ROUNDING:
            raise Failed(f"The nodes do not hold the mean, {mean:.3f}, after round {round}: {values}.")
    return float(max(when for when, *_ in said)) - began


def turn(folder: Path, begun: Sequence[float], alive: Callable[[], bool]) -> Turn:
    """Time all rounds but the first and the last; then look at the memory in the last, which takes a part of a core."""
    seconds, counts, memory = [], [], Memory()
    for round in range(1, ROUNDS + 1):
        trained(folder, round, alive)
        counts.append(sent())
        with memory.watched() if round == ROUNDS else nullcontext():
            seconds.append(exchange(folder, round, begun, alive))
            trained(folder, round + 1, alive)  # some hold the mean only when they are given it to train on
    counts.append(sent())
    sizes = tuple(later - earlier for earlier, later in pairwise(counts))
    return Turn(tuple(seconds[1:-1]), sizes[1:], memory.node, memory.all)


def trained(folder: Path, round: int, alive: Callable[[], bool]) -> None:
    """Wait until all have trained, and nothing is left to do of the round before."""
    come(folder, "trained", round, alive)
    time.sleep(SETTLE)


def main(module: str, python: str, folder: Path, mib: str) -> None:
    build(*HOSTS)
    with (folder / "log").open("wb") as log:
        script = subprocess.Popen(  # noqa: S603
            [python, "-m", module, str(folder), mib], cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        done = turn(folder, ends_of(adapter(int(mib))), lambda: script.poll() is None)
    except Failed as error:
        done = Turn(error=str(error))
    put(over(folder), "")
    with suppress(subprocess.TimeoutExpired):
        script.wait(30.0)  # what still runs then ends with this process's namespace
    print(json.dumps(asdict(done)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])
