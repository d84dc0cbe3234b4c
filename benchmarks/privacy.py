"""What a privacy budget costs in accuracy, with A and B trained and with B alone.

The demo's model and articles: one node by itself, all-MiniLM-L6-v2 with adapters on every linear layer of the last
block and a new head. Of each method and budget every learning rate is tried, without privacy only the lower; the
one best on validation articles is taken, and its accuracy on the test articles is what counts (mean and standard
error over the seeds). Prints a table and writes benchmarks/results/privacy.json; takes about half an hour of one idle
core. The demo's files must be there (``python tools/fetch_demo.py``).

    python -m benchmarks.privacy [--quick]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from decaf_node.cli.demo.articles import Article, read_topics
from decaf_node.cli.demo.assets import asset, find_assets
from decaf_node.link import Welcome
from decaf_node.settings import Settings
from decaf_node.training.alone import LinkToNobody
from decaf_node.training.assembly import Assembled, assemble
from decaf_node.training.evaluate import classify, evaluate
from decaf_node.training.model import load_tokenizer
from decaf_node.training.offline import go_offline

RESULTS = Path(__file__).parent / "results" / "privacy.json"
METHODS = {"A and B": "decaf", "B alone": "dlora-fa"}
BUDGETS = (1.0, 8.0, None)
RATES = (3e-3, 1e-2)
SEEDS = (0, 1, 2)
VALIDATION, TEST = 150, 300
STEPS, BATCH, LENGTH = 40, 32, 32
DELTA, MAX_GRAD_NORM = 1e-4, 1.0


@dataclass(frozen=True)
class Run:
    """One training. epsilon: None without privacy. seconds: of CPU, everything loaded."""

    method: str
    epsilon: float | None
    rate: float
    seed: int
    validation: float
    test: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """A method and a budget, at the learning rate that was best on the validation articles."""

    method: str
    epsilon: float | None
    rate: float
    test: float
    error: float


def train(assets: Path, articles: Sequence[Article], method: str, epsilon: float | None, rate: float, seed: int) -> Run:
    drawn = list(articles)
    random.Random(seed).shuffle(drawn)
    held_out, training = drawn[: VALIDATION + TEST], drawn[VALIDATION + TEST :]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        settings = settings_for(assets, write(work / "train.jsonl", training), METHODS[method], epsilon, rate, seed)
        (work / "spool").mkdir()
        welcome = Welcome("", "benchmark", settings.model_dump(mode="json"), str(work / "spool"), str(work / "account"))
        link = LinkToNobody(settings, lambda round, loss, accuracy: None)
        assembled = assemble(settings, link, welcome, work)
        started = time.process_time()
        assembled.trainer.train()
        seconds = time.process_time() - started
        validation, test = accuracies(assembled, settings, write(work / "held_out.jsonl", held_out))
    return Run(method, epsilon, rate, seed, validation, test, seconds)


def settings_for(assets: Path, data: Path, algorithm: str, epsilon: float | None, rate: float, seed: int) -> Settings:
    privacy = {"epsilon": epsilon, "delta": DELTA, "max_grad_norm": MAX_GRAD_NORM, "steps": STEPS} if epsilon else {}
    return Settings.model_validate(
        {
            "model": {
                "path": asset(assets, "minilm"),
                "task": "sequence-classification",
                "pooling": "mean",
                "labels": sorted(path.name for path in asset(assets, "bbcnews").joinpath("data").iterdir()),
                "device": "cpu",
                "cache_lower_layers": True,
            },
            "lora": {
                "r": 8,
                "lora_alpha": 16,
                "target_modules": ["query", "key", "value", "dense"],
                "layers_to_transform": [5],
            },
            "data": {"train": [data], "evaluation_fraction": 0, "max_length": LENGTH},
            "training": {
                "seed": seed,
                "threads": 1,
                "arguments": {"per_device_train_batch_size": BATCH, "learning_rate": rate},
            },
            "round": {
                "algorithm": algorithm,
                "steps": STEPS,
                "limit": 1,
                "overlap": False,
                "evaluate_every": 1000,
            },
            "privacy": privacy,
        }
    )


def accuracies(assembled: Assembled, settings: Settings, held_out: Path) -> Iterator[float]:
    """Yield the accuracy on the validation articles, and on the test articles."""
    from decaf_node.training.data import Rows, load_data

    tokenizer = load_tokenizer(settings.model)
    data = settings.data.model_copy(update={"evaluation": (held_out,)})
    examples = load_data(settings.model_copy(update={"data": data}), Rows(settings, tokenizer)).evaluation
    scorer = classify(tokenizer.pad_token_id, keyed=False)
    for part in (examples[:VALIDATION], examples[VALIDATION:]):
        accuracy = evaluate(assembled.model, part, scorer, 100, ranked=True).accuracy
        assert accuracy is not None
        yield accuracy


def write(path: Path, articles: Sequence[Article]) -> Path:
    path.write_text("".join(json.dumps({"text": article.text, "label": article.label}) + "\n" for article in articles))
    return path


def rows_of(runs: Sequence[Run]) -> Iterator[Row]:
    for epsilon in dict.fromkeys(run.epsilon for run in runs):
        for method in dict.fromkeys(run.method for run in runs):
            of_both = [run for run in runs if (run.method, run.epsilon) == (method, epsilon)]
            by_rate = {rate: [run for run in of_both if run.rate == rate] for rate in {run.rate for run in of_both}}
            best = max(sorted(by_rate), key=lambda rate: statistics.mean(run.validation for run in by_rate[rate]))
            tests = [run.test for run in by_rate[best]]
            error = statistics.stdev(tests) / math.sqrt(len(tests)) if len(tests) > 1 else math.nan
            yield Row(method, epsilon, best, statistics.mean(tests), error)


def show(rows: Sequence[Row]) -> None:
    table = Table(title=f"Accuracy on {TEST} articles after {STEPS} steps of {BATCH}, delta {DELTA:g}")
    for column in ("epsilon", "trained", "learning rate", "accuracy", "standard error"):
        table.add_column(column, justify="right")
    for row in rows:
        epsilon = "no privacy" if row.epsilon is None else f"{row.epsilon:g}"
        table.add_row(epsilon, row.method, f"{row.rate:g}", f"{row.test:.1%}", f"{row.error:.1%}")
    Console(width=100).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, one budget, one rate; nothing is written")
    quick = parser.parse_args().quick
    go_offline()
    assets = find_assets(None, os.environ)
    articles = list({article.text: article for article in read_topics(asset(assets, "bbcnews") / "data")}.values())
    runs = []
    for epsilon in BUDGETS[1:2] if quick else BUDGETS:
        for method in METHODS:
            for rate in RATES[:1] if quick or epsilon is None else RATES:
                for seed in SEEDS[:1] if quick else SEEDS:
                    runs.append(train(assets, articles, method, epsilon, rate, seed))
                    print(json.dumps(asdict(runs[-1])), flush=True)
    rows = list(rows_of(runs))
    show(rows)
    if not quick:
        plan = {"steps": STEPS, "batch": BATCH, "delta": DELTA, "max_grad_norm": MAX_GRAD_NORM, "length": LENGTH}
        plan |= {"train": len(articles) - VALIDATION - TEST, "validation": VALIDATION, "test": TEST}
        document = {
            "machine": machine(),
            "plan": plan,
            "rows": [asdict(row) for row in rows],
            "runs": [asdict(run) for run in runs],
        }
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
