"""What liars in a mesh of the demo's classifiers cost the honest nodes, and how much robust mixing takes away of it.

The demo's model, articles and skewed shares, eight nodes on a full graph, one process, rounds in lock-step (see
``lockstep``). One node of eight lies (two of ten where it says so), in the factors and in the head. The figure is the
honest nodes' accuracy on the same test articles at the end, beside that of a mesh of the honest nodes alone: with the
same articles in the same order, and mixing with everybody in full. Prints a table (mean and standard error over the
seeds), and writes benchmarks/results/hostile.json after every run. Runs of the same plan that are in it already are
kept, so the table can be filled in pieces; delete those that a change of the code makes untrue. Snapshots that are
refused before they are mixed (not finite, of another model) come to the mesh of the honest alone, and are not run. The
demo's files must be there (``python tools/fetch_demo.py``).

    python -m benchmarks.hostile [--seeds 1] [--modes off clip score] [--attacks NAME ...] [--processes 2]
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.lockstep import Lie, Mesh, Node, load
from benchmarks.machine import machine
from benchmarks.one_model import Shared
from decaf_node.cli.demo.articles import Article, read_topics, without_duplicates
from decaf_node.cli.demo.assets import asset, find_assets
from decaf_node.cli.demo.shares import deal
from decaf_node.lowrank.adapter import Adapter, norm, plain_norm
from decaf_node.lowrank.product import Product
from decaf_node.training.offline import go_offline, quiet

RESULTS = Path(__file__).parent / "results" / "hostile.json"
ROBUST = ("off", "clip", "score")
SHARE, TEST = 80, 300  # articles; a quarter of a share is held out, which leaves as much to train on as in the demo
NOISE = 100.0  # times the norm of the sound snapshot
PRODUCTS, HEAD = 24.0, 3.3  # norms of the drift: about those of an honest adapter at the end
ROUNDS = 36
OLD = 3  # the round whose copy is sent for ever


@dataclass(frozen=True)
class Attack:
    """lie: None: nobody lies. mislead: liars train on wrong labels. present: the liars are in the mesh at all."""

    name: str
    lie: Lie | None
    nodes: int = 8
    liars: int = 1
    mislead: bool = False
    present: bool = True

    @property
    def at(self) -> range:
        """Return the numbers of the liars: in the middle, where other nodes hold the same topics."""
        return range(self.nodes // 2 - self.liars // 2, self.nodes // 2 - self.liars // 2 + self.liars)


@dataclass(frozen=True)
class Run:
    """accuracies: of each honest node. seconds: of CPU."""

    attack: str
    robust: str
    seed: int
    accuracies: list[float]
    seconds: float

    @property
    def accuracy(self) -> float:
        return statistics.fmean(self.accuracies)


@dataclass(frozen=True)
class Figure:
    """Means over the seeds. lost: accuracy beside that of the honest alone. error: standard error of what is lost."""

    accuracy: float
    lost: float
    error: float | None
    seeds: int


@dataclass(frozen=True)
class Row:
    """figures: by ``security.robust``."""

    attack: str
    nodes: int
    liars: int
    figures: dict[str, Figure]


def _scaled(adapter: Adapter, by: float) -> Adapter:
    return Adapter(
        {name: Product(by * product.b, product.a, product.scale) for name, product in adapter.products.items()},
        {name: by * tensor for name, tensor in adapter.tensors.items()},
    )


def _drawn(like: Adapter, seed: int, rank: int, products: float, head: float) -> Adapter:
    """Return an adapter drawn from ``seed``, of these norms over all layers, and over all plain tensors."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    drawn = Adapter(
        {name: Product(normal(p.b.shape[0], rank), normal(rank, p.a.shape[1])) for name, p in like.products.items()},
        {name: normal(*tensor.shape) for name, tensor in like.tensors.items()},
    )
    by, by_head = products / norm(drawn), head / plain_norm(drawn)
    return Adapter(
        {name: Product(by * product.b, product.a) for name, product in drawn.products.items()},
        {name: by_head * tensor for name, tensor in drawn.tensors.items()},
    )


def sign_flip(past: Sequence[Adapter]) -> Adapter:
    return _scaled(past[-1], -1.0)


def large_noise(past: Sequence[Adapter]) -> Adapter:
    sound = past[-1]
    rank = next(iter(sound.products.values())).rank
    return _drawn(sound, len(past), rank, NOISE * norm(sound), NOISE * plain_norm(sound))


def zero_product(past: Sequence[Adapter]) -> Adapter:
    return _scaled(past[-1], 0.0)


def constant_drift(past: Sequence[Adapter]) -> Adapter:
    """Add the same to every snapshot, which is the same for all liars."""
    sound = past[-1]
    drift = _drawn(sound, 0, 1, PRODUCTS, HEAD)
    products = {
        name: Product(torch.cat([p.scale * p.b, drift.products[name].b], 1), torch.cat([p.a, drift.products[name].a]))
        for name, p in sound.products.items()
    }
    return Adapter(products, {name: tensor + drift.tensors[name] for name, tensor in sound.tensors.items()})


def old_round(past: Sequence[Adapter]) -> Adapter:
    return past[:OLD][-1]


def alternating(past: Sequence[Adapter]) -> Adapter:
    return past[-1] if len(past) % 2 else sign_flip(past)


def sound(past: Sequence[Adapter]) -> Adapter:
    return past[-1]


ALONE = {8: "the seven honest alone", 10: "the eight honest alone"}
ATTACKS = (
    Attack(ALONE[8], None, present=False),
    Attack("none", None),
    Attack("sign flip", sign_flip),
    Attack("large noise", large_noise),
    Attack("zero product", zero_product),
    Attack("constant drift", constant_drift),
    Attack("copy of an old round", old_round),
    Attack("flipped labels", sound, mislead=True),
    Attack("alternating good and bad", alternating),
    Attack(ALONE[10], None, nodes=10, liars=2, present=False),
    Attack("two colluders", constant_drift, nodes=10, liars=2),
)


def play(attack: Attack, robust: str, seed: int) -> Run:
    """Run one mesh from its beginning to its end."""
    go_offline()
    quiet()
    torch.set_num_threads(1)
    assets = find_assets(None, os.environ)
    articles = without_duplicates(read_topics(asset(assets, "bbcnews") / "data"))
    dealt = deal(articles, attack.nodes, SHARE, TEST, iid=False, seed=seed)
    shared = load(asset(assets, "minilm"), dealt.labels)
    torch.manual_seed(seed)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        nodes = join(attack, shared, dealt.shares, seed, Path(folder))
        mesh = Mesh(nodes, robust, seed)
        for _ in range(ROUNDS):
            mesh.play()
        test = shared.encode(dealt.test)
        accuracies = [node.accuracy(test) for node in nodes.values() if node.lie is None]
    return Run(attack.name, robust, seed, accuracies, time.process_time() - started)


def join(
    attack: Attack, shared: Shared, shares: Sequence[Sequence[Article]], seed: int, folder: Path
) -> dict[str, Node]:
    """Return the nodes of the mesh, the liars among them where there are any."""
    nodes = {}
    for number, articles in enumerate(shares):
        liar = number in attack.at
        if attack.present or not liar:
            lie = attack.lie if liar else None
            mislead = liar and attack.mislead
            nodes[str(number)] = Node(shared, articles, 100 * seed + number, folder, lie, mislead)
    return nodes


def rows_of(runs: Sequence[Run]) -> Iterator[Row]:
    """Yield a row for each attack that has run at all."""
    for attack in ATTACKS:
        figures = {robust: figure_of(runs, attack, robust) for robust in ROBUST}
        known = {robust: figure for robust, figure in figures.items() if figure is not None}
        if known:
            present = attack.nodes if attack.present else attack.nodes - attack.liars
            yield Row(attack.name, present, attack.liars if attack.lie else 0, known)


def figure_of(runs: Sequence[Run], attack: Attack, robust: str) -> Figure | None:
    """Return None if it has not run yet."""
    alone = {run.seed: run.accuracy for run in runs if (run.attack, run.robust) == (ALONE[attack.nodes], "off")}
    accuracies = {run.seed: run.accuracy for run in runs if (run.attack, run.robust) == (attack.name, robust)}
    lost = [alone[seed] - accuracies[seed] for seed in alone.keys() & accuracies.keys()]
    if not lost:
        return None
    error = statistics.stdev(lost) / math.sqrt(len(lost)) if len(lost) > 1 else None
    return Figure(statistics.fmean(accuracies.values()), statistics.fmean(lost), error, len(lost))


def show(rows: Sequence[Row]) -> None:
    table = Table(title=f"Accuracy of the honest nodes on {TEST} articles (points lost beside the honest alone)")
    for column in ("attack", "liars", *ROBUST):
        table.add_column(column, justify="left" if column == "attack" else "right")
    for row in rows:
        figures = [told(row.figures[robust]) if robust in row.figures else "" for robust in ROBUST]
        table.add_row(row.attack, f"{row.liars} of {row.nodes}", *figures)
    Console(width=120).print(table)


def told(figure: Figure) -> str:
    error = "" if figure.error is None else f" ± {100 * figure.error:.1f}"
    return f"{figure.accuracy:.1%} ({100 * figure.lost:.1f}{error})"


PLAN = {"rounds": ROUNDS, "share": SHARE, "test": TEST, "noise": NOISE, "drift": [PRODUCTS, HEAD], "old": OLD}


def saved() -> list[Run]:
    """Return the runs of this plan that are in the file."""
    if not RESULTS.exists():
        return []
    document = json.loads(RESULTS.read_text())
    return [Run(**run) for run in document["runs"]] if document["plan"] == PLAN else []


def save(runs: Sequence[Run]) -> None:
    document = {
        "machine": machine(),
        "plan": PLAN,
        "rows": [asdict(row) for row in rows_of(runs)],
        "runs": [asdict(run) for run in runs],
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--modes", nargs="+", choices=ROBUST, default=ROBUST)
    parser.add_argument("--attacks", nargs="+", choices=[attack.name for attack in ATTACKS])
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    attacks = [attack for attack in ATTACKS if not options.attacks or attack.name in options.attacks]
    runs = saved()
    done = {(run.attack, run.robust, run.seed) for run in runs}
    wanted = [(attack, robust, seed) for seed in range(options.seeds) for robust in options.modes for attack in attacks]
    jobs = [(attack, robust, seed) for attack, robust, seed in wanted if (attack.name, robust, seed) not in done]
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        for played in as_completed(pool.submit(play, *job) for job in jobs):
            runs.append(played.result())
            run = runs[-1]
            print(
                f"{run.attack}, {run.robust}, seed {run.seed}: {run.accuracy:.1%}, {run.seconds:.0f} s", file=sys.stderr
            )
            save(runs)
    show([*rows_of(runs)])


if __name__ == "__main__":
    main()
