"""The final tables: five seeds of what was chosen on the validation texts, on the test texts, and their picture.

120 cells of some five minutes of a core each. What has been run is not run again, so a night can be had in pieces.

    python -m benchmarks.learning.final --jobs 2      then docs/learning-final.md and docs/learning.png are written
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.learning.jobs import run_all
from benchmarks.learning.plots import draw
from benchmarks.learning.results import read_results
from benchmarks.learning.runs import Setting
from benchmarks.learning.tables import by_title, table
from decaf_node.training.balance import RARE

DOCS = Path(__file__).parents[2] / "docs"
SEEDS = range(5)
PAPER, ONE_PLACE = "decaf", "centralized"
LOSS = f"balanced, to mesh, absent {RARE:g}, own rows"  # what a node learns by, unless its settings say otherwise
FLOAT32, INT8, COMPACT = f"decaf, {LOSS}", f"decaf, int8, {LOSS}", f"decaf, compact, {LOSS}"
SERVER = f"fedavg of products, {LOSS}"
RING = Setting("20newsgroups", "iid", "ring", 10, 200, "8", 3, 40, 0, 5e-3, "test")
SKEWED = replace(RING, split="dirichlet-0.3")
SETTINGS = (
    RING,
    SKEWED,
    replace(RING, split="exclusive-2"),
    replace(RING, task="reuters-r8"),
    replace(SKEWED, task="reuters-r8"),
)


def in_rounds_of_one_step(setting: Setting) -> Setting:
    return replace(setting, steps=1, rounds=setting.rounds * setting.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    kinds = [(setting, method) for setting in SETTINGS for method in ("dlora", PAPER, ONE_PLACE)]
    kinds += [(in_rounds_of_one_step(setting), INT8) for setting in SETTINGS]
    kinds += [(in_rounds_of_one_step(SKEWED), COMPACT)]
    kinds += [(SKEWED, method) for method in (FLOAT32, SERVER, "local")]
    # whole seeds first: whoever stops in the middle has tables
    try:
        run_all([(setting, method, seed) for seed in SEEDS for setting, method in kinds], parser.parse_args().jobs)
    finally:
        write(kinds)


def write(kinds: Sequence[tuple[Setting, str]]) -> None:
    """Print and write the tables of what there is, and their picture."""
    tables = by_title(run for run in read_results() if (run.setting, run.method) in kinds)
    if not tables:
        return
    text = "\n".join(table(name, runs, (PAPER, ONE_PLACE)) for name, runs in tables.items())
    print(text)
    (DOCS / "learning-final.md").write_text(text)
    draw(tables, DOCS / "learning.png")


if __name__ == "__main__":
    main()
