"""Newsrooms that learn together: real daemons with the built-in trainer, each on a host of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from decaf_node.cli.demo.articles import read_topics, without_duplicates
from decaf_node.cli.demo.recipe import classifier
from decaf_node.cli.demo.shares import deal
from decaf_node.daemon.reports import RoundReport, StatusReport
from decaf_node.errors import DaemonUnreachable, TryAgain
from tests.daemon.network_lab import PORT, within
from tests.daemon.processes import ROOT, Daemon, Settings
from tests.daemon.trusted import Authority
from tests.e2e.reliability.dying import DIE_AT
from tests.e2e.reliability.hosts import Hosts

ASSETS = Path(os.environ.get("DECAF_NODE_DEMO_ASSETS", ROOT / ".demo"))
NAMES = "abcde"
SHARE, TEST = 60, 150  # articles of a node, and of the common test set
STEPS = 3
TESTED_EVERY = 2  # rounds
RATE = 2e-3  # lower than the demo's, which ends after thirty rounds
FIRST_NICENESS, NICENESS = -5, 10  # who starts loads torch before the others train on
PATIENCE = 180.0


class Room(Daemon):
    """A node with the real command and the real trainer."""

    def __init__(self, folder: Path, name: str, settings: dict[str, dict[str, Any]], authority: Authority) -> None:
        super().__init__(folder, name, settings, authority)
        self.settings = settings
        self.within = within(name)
        self.die_at = self.folder / "die-at"
        self.environ[DIE_AT] = str(self.die_at)

    def words(self) -> list[str]:
        places = ["--config", self.config, "--state", self.state, "--runtime", self.runtime]
        program = [sys.executable, "-m", "tests.e2e.reliability.dying", "run"]
        return ["nice", "-n", str(FIRST_NICENESS), *program, *map(str, places)]

    @property
    def ends_by_itself(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def on_disk(self) -> tuple[int, int]:
        """Return the last mixed and the last saved round of a node that does not run."""
        with tempfile.TemporaryDirectory() as folder:  # a copy: to open the database is to flush it
            for file in self.state.glob("rounds.sqlite*"):
                shutil.copyfile(file, Path(folder, file.name))
            with contextlib.closing(sqlite3.connect(Path(folder, "rounds.sqlite"))) as database:
                (mixed,) = database.execute("SELECT coalesce(max(round), 0) FROM rounds").fetchone()
                (saved,) = database.execute("SELECT coalesce(max(round), 0) FROM saved").fetchone()
        return max(mixed, saved), saved


@dataclass
class Sight:
    """What the nodes show at one moment. accuracies: of each the last that was measured."""

    saved: dict[str, int] = field(default_factory=dict)
    accuracies: list[float] = field(default_factory=list)
    alerts: dict[str, list[str]] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        return mean(self.accuracies)


class Mesh:
    """All of them, and what is to be seen of them. learnt: the best mean accuracy that they had when a fault began."""

    def __init__(self, folder: Path, hosts: Hosts, names: str = NAMES, others: Settings | None = None) -> None:
        """others: settings of all nodes instead of the usual ones."""
        self.hosts = hosts
        self.authority = Authority()
        settings = lay_out(folder, names)
        for sections in settings.values():
            for section, values in (others or {}).items():
                sections[section] |= values
        self.rooms = {name: Room(folder, name, sections, self.authority) for name, sections in settings.items()}
        self.ids: dict[str, str] = {}
        self.learnt = 0.0

    def start(self, names: Iterable[str]) -> tuple[float, float]:
        """Start these nodes; return when, and how long it took until their trainers were loaded."""
        since = time.time()
        for name in names:
            self.rooms[name].start()
        self.ready(names)
        return since, time.time() - since

    def ready(self, names: Iterable[str]) -> None:
        """Wait until the trainers are there; from then on they leave the processors to whoever starts."""
        for name in names:
            status = self.rooms[name].until(lambda status: status.trainer.state == "ready", PATIENCE)
            self.ids[name] = status.node
            give_way(status.trainer.pid)

    def status(self, name: str) -> StatusReport | None:
        """None while it does not answer."""
        with contextlib.suppress(DaemonUnreachable, TryAgain):
            return self.rooms[name].status()
        return None

    def rounds(self, name: str) -> list[RoundReport]:
        with contextlib.suppress(DaemonUnreachable, TryAgain):
            return self.rooms[name].rounds()
        return []

    def look(self, names: str = NAMES) -> Sight:
        sight = Sight()
        for name in names:
            if (status := self.status(name)) is not None:
                sight.saved[name] = status.saved_round
            tested = (row.evaluation_accuracy for row in self.rounds(name))
            sight.accuracies.append(next((value for value in tested if value is not None), 0.0))
            with contextlib.suppress(DaemonUnreachable, TryAgain), self.rooms[name].client() as client:
                sight.alerts[name] = [alert.words for alert in client.alerts()]
        return sight

    # --- who has mixed with whom -------------------------------------------------------------------------------------

    def partners(self, name: str, since: float) -> set[str]:
        """Return whom the node has mixed with a snapshot of its own that it made after ``since``."""
        nodes = {node: other for other, node in self.ids.items()}
        mixed: set[str] = set()
        for row in self.rounds(name):
            made = row.time - row.mix_seconds - row.exchange_seconds
            if since < made and row.time <= time.time():
                mixed |= {nodes[edge.node] for edge in row.edges if edge.node in nodes}
        return mixed

    def missing(self, since: float, some: str, others: str) -> list[str]:
        """Return the pairs of ``some`` with ``others`` that have not mixed since, each end with a new snapshot."""
        pairs = {(one, other) for one in some for other in others if one != other}
        ends = {name: self.partners(name, since) for name in {*some, *others}}
        return sorted(one + other for one, other in pairs if other not in ends[one] or one not in ends[other])

    def mixed_again(self, since: float, some: str = NAMES, others: str = NAMES) -> float:
        """Wait until all those pairs have mixed since ``since``; return how long after it that was."""
        end = time.monotonic() + PATIENCE
        while missing := self.missing(since, some, others):
            self.nobody_has_ended(some + others)
            tails = "\n".join(f"--- {name}\n{self.rooms[name].tail()}" for name in sorted({*"".join(missing)}))
            assert time.monotonic() < end, f"{tails}\n{missing} have not mixed again"
            time.sleep(0.25)
        return time.time() - since

    def nobody_has_ended(self, names: str) -> None:
        for room in map(self.rooms.__getitem__, names):
            assert not room.ends_by_itself, f"{room.name} has ended:\n{room.tail()}"

    def rounds_go_by(self, count: int, names: str = NAMES) -> None:
        """Wait until each of them has mixed so many rounds more."""
        before = {name: self.rooms[name].until(lambda status: True).round for name in names}
        for name in names:
            self.rooms[name].until(lambda status: status.round >= before[name] + count, PATIENCE)  # noqa: B023 - called here


def give_way(pid: int) -> None:
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(thread), NICENESS)


def lay_out(folder: Path, names: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Write the articles of each newsroom, two topics of five; return their settings."""
    recipe = classifier(ASSETS / "minilm", iid=False)
    articles = without_duplicates(read_topics(ASSETS / "bbcnews" / "data"))
    dealt = deal(articles, len(names), SHARE, TEST, iid=False, seed=0)
    test = _write(folder / "test.jsonl", dealt.test)
    settings: dict[str, dict[str, Any]] = {}
    for name, share in zip(names, dealt.shares, strict=True):
        train = _write(folder / f"{name}.jsonl", share)
        settings[name] = {
            "listen": {"address": "0.0.0.0", "port": PORT, "enrolment_port": 7434},
            "discovery": {"mdns": True},
            "model": {**recipe.model, "labels": list(dealt.labels)},
            "lora": recipe.lora,
            "data": {**recipe.data, "train": [str(train)], "evaluation": [str(test)]},
            "training": {"threads": 1},
            "training.arguments": {**recipe.arguments, "learning_rate": RATE},
            "round": {"steps": STEPS, "wait_floor": 1.0, "wait_ceiling": 120.0, "evaluate_every": TESTED_EVERY},
            "limits": {"redial_backoff": 30.0},
        }
    return settings


def _write(path: Path, articles: Iterable[Any]) -> Path:
    rows: Callable[[Any], str] = lambda one: json.dumps({"text": one.text, "label": one.label})  # noqa: E731
    path.write_text("\n".join(map(rows, articles)))
    return path
