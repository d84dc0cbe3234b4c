"""Many nodes at once; and many rounds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.daemon.processes import Daemon, Settings, until
from tests.e2e.reliability.hosts import Hosts
from tests.e2e.reliability.play import Outcome
from tests.e2e.reliability.rooms import Mesh

TWELVE = "abcdefghijkl"
FEW = "abc"
WEEK = 7 * 24 * 12  # rounds of five minutes, the default
SHORT = {  # rounds, of which two thousand go by in minutes
    "round": {"steps": 1, "evaluate_every": 250},
    "training.arguments": {"per_device_train_batch_size": 2},
}
PATIENCE = 400.0
WEEK_PATIENCE = 1200.0
BY_ITSELF = 0.4  # accuracy that a node can come to by itself: it sees two topics of five


@dataclass(frozen=True)
class Use:
    """What a process holds. disk: of a daemon, the bytes of its state and runtime folders."""

    memory: int
    files: int
    threads: int
    disk: int = 0


def use_of(pid: int, *folders: Path) -> Use:
    process = psutil.Process(pid)
    disk = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    return Use(process.memory_info().rss, process.num_fds(), process.num_threads(), disk)


def uses_of(node: Daemon) -> dict[str, Use]:
    """Return what daemon and trainer hold."""
    status = node.status()
    assert node.process is not None
    return {"daemon": use_of(node.process.pid, node.state, node.runtime), "trainer": use_of(status.trainer.pid)}


def twelve_at_once(hosts: Hosts) -> Outcome:
    """Twelve nodes that know nothing of each other start together; each meets all, mixes and learns."""
    with crowd_of(TWELVE, hosts) as crowd:
        since, loading = crowd.start(TWELVE)
        for name in TWELVE:
            until(lambda: has_met_all(crowd.rooms[name]), PATIENCE)  # noqa: B023 - called here
        seconds = time.time() - since
        until(lambda: crowd.look(TWELVE).accuracy > BY_ITSELF, PATIENCE)
        crowd.nobody_has_ended(TWELVE)
        degrees = [crowd.rooms[name].status().degree for name in TWELVE]
    happened = f"each knew the other eleven, and had mixed with its {min(degrees)} to {max(degrees)} neighbours"
    return Outcome("twelve nodes start at once", happened, seconds, 0, loading)


@contextmanager
def crowd_of(names: str, hosts: Hosts, settings: Settings | None = None) -> Iterator[Mesh]:
    """Lay out a mesh on those hosts; end it at the end."""
    with tempfile.TemporaryDirectory(prefix="decaf-", dir="/tmp") as folder:
        crowd = Mesh(Path(folder), hosts, names, settings)
        try:
            yield crowd
        finally:
            for room in crowd.rooms.values():
                room.end()


def has_met_all(node: Daemon) -> bool:
    with node.client() as client:
        peers = client.peers()
    alive = [peer for peer in peers if peer.state == "alive"]
    neighbours = [peer for peer in peers if peer.neighbour]
    return len(alive) == len(TWELVE) - 1 and bool(neighbours) and all(peer.mixes > 0 for peer in neighbours)


def a_week(hosts: Hosts, rounds: int = WEEK) -> dict[str, Any]:
    """As many rounds as in a week, one after another; what the processes hold early on and at the end."""
    with crowd_of(FEW, hosts, SHORT) as crowd:
        began, _ = crowd.start(FEW)
        early = at_round(crowd.rooms.values(), rounds // 4)
        late = at_round(crowd.rooms.values(), rounds)
        took = round(time.time() - began, 1)
        mixes = min(crowd.rooms[name].status().mixes for name in FEW)
        accuracy = crowd.look(FEW).accuracy
    return held("a week", (rounds // 4, rounds), early, late) | {"mixes": mixes, "accuracy": accuracy, "took": took}


def at_round(nodes: Iterable[Daemon], round: int) -> dict[str, Use]:
    for node in nodes:
        node.until(lambda status: status.round >= round, WEEK_PATIENCE)
    return largest([uses_of(node) for node in nodes])


def largest(uses: list[dict[str, Use]]) -> dict[str, Use]:
    """The most that any node's processes hold, each by its kind."""
    fields = ("memory", "files", "threads", "disk")
    return {
        process: Use(*(max(getattr(of[process], field) for of in uses) for field in fields))
        for process in ("daemon", "trainer")
    }


def held(run: str, rounds: tuple[int, int], early: dict[str, Use], late: dict[str, Use]) -> dict[str, Any]:
    """One row of what is held, early and late."""
    both = {process: [asdict(early[process]), asdict(late[process])] for process in early}
    return {"held": run, "rounds": rounds, **both}
