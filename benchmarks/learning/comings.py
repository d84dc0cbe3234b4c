"""Who comes late, and who is away for long: how soon they are as good as the others, and what it costs these.

The newcomer starts, knowing nothing, when half the rounds are over. The absent node is killed after a quarter of the
rounds, for 20 of them, and goes on from what it had saved. Told is its accuracy after each of its next mixes, beside
the mean of the others at that moment; and that of the others at the end, beside a mesh where nobody came or went.
A method's exchanges count as rounds.

    python -m benchmarks.learning.comings --method "decaf, balanced"
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.learning.learner import State, load
from benchmarks.learning.methods import method_of
from benchmarks.learning.runs import ROUND_SECONDS, Bench, Setting, finish, mesh_of
from benchmarks.learning.tasks import load_task
from decaf_node.cli.demo.assets import find_assets
from decaf_node.lowrank.adapter import Adapter
from decaf_node.training.offline import go_offline, quiet

RESULTS = Path(__file__).parents[1] / "results" / "comings.json"
AWAY = 20  # rounds
MIXES = 3  # of the one that comes, that are looked at
FIRST_LIFE = 0.1  # of a round: too short for one
ONE = -1  # the node that comes late or goes away: the last


@dataclass(frozen=True)
class Coming:
    """accuracies: of the one after each of its first mixes, and of the others' mean then; end: of the others."""

    what: str
    accuracies: list[tuple[float, float]]
    end: float


class Diary:
    """Every mix of every node, in order."""

    def __init__(self, world: Bench) -> None:
        self.mixes: list[tuple[float, State]] = []
        world.problem.hear = lambda state: self.mixes.append((world.now, state))

    def after(self, time: float, node: int) -> list[int]:
        """Return where in the diary the node's mixes after that time are."""
        return [place for place, (when, state) in enumerate(self.mixes) if when > time and state.node == node]

    def last(self, place: int, node: int) -> Adapter:
        return next(state.adapter for _, state in reversed(self.mixes[: place + 1]) if state.node == node)


def newcomer(world: Bench, rounds: int) -> float:
    one, comes = world.hosts[ONE], rounds / 2 * ROUND_SECONDS
    world.agenda.at(FIRST_LIFE * ROUND_SECONDS + 5.0, one.kill)
    world.agenda.at(comes, one.start)
    return comes


def absent(world: Bench, rounds: int) -> float:
    one, goes = world.hosts[ONE], rounds / 4 * ROUND_SECONDS
    world.agenda.at(goes, one.kill)
    world.agenda.at(goes + AWAY * ROUND_SECONDS, one.start)
    return goes + AWAY * ROUND_SECONDS


def look(what: str, world: Bench, since: float, accuracy: Callable[[Adapter], float]) -> Coming:
    diary, nodes = Diary(world), range(len(world.hosts) - 1)
    end = finish(world)
    places = diary.after(since, len(nodes))[:MIXES]
    rows = [
        (accuracy(diary.last(place, len(nodes))), fmean(accuracy(diary.last(place, node)) for node in nodes))
        for place in places
    ]
    return Coming(what, rows, fmean(accuracy(state.adapter) for state in end[:-1]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--method", default="decaf")
    given = parser.parse_args(arguments)
    go_offline()
    quiet()
    assets = find_assets(None, os.environ)
    plan = ("20newsgroups", "dirichlet-0.3", "ring", 10, 200, "8", 3, given.rounds, 0, 5e-3, "validation")
    setting = Setting(*plan)
    task = load_task(setting.task, assets)
    shared = load(task, 8, setting.rate, setting.steps, setting.dtype)
    texts = shared.encode(task.validation)
    comings, rounds = [], setting.rounds * method_of(given.method).exchanges
    for what, happens in (("nobody", None), ("newcomer", newcomer), ("absent", absent)):
        world = mesh_of(setting, given.method, 0, [shared] * setting.nodes, task)
        since = happens(world, rounds) if happens else rounds * ROUND_SECONDS * 10
        comings.append(look(what, world, since, lambda adapter: shared.accuracy(adapter, texts)))
        print(json.dumps(asdict(comings[-1])), flush=True)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[given.method] = {"setting": asdict(setting), "runs": [asdict(one) for one in comings]}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
