"""The final tables: five seeds of what was chosen on the validation texts, on the test texts, and their picture.

120 cells of some six minutes of a core each. What has been run is not run again, so a night can be had in pieces.

    python -m benchmarks.learning.final --jobs 2      then docs/learning-final.md and docs/learning.png are written
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.learning.jobs import run_all
from benchmarks.learning.plots import draw
from benchmarks.learning.results import read_results
from benchmarks.learning.runs import Setting
from benchmarks.learning.tables import markdown, rows, title

DOCS = Path(__file__).parents[2] / "docs"
SEEDS = range(5)
RING = Setting("20newsgroups", "iid", "ring", 10, 200, "8", 3, 40, 0, 5e-3, "test", "bfloat16")
RARE = "decaf, balanced, absent 0.2, own rows"
EVEN = ("dlora", "decaf", RARE, "centralized")
SKEWED = ("dlora", "decaf", "decaf, balanced", RARE, "local", "centralized")
FAR_APART = ("dlora", "decaf", "decaf, balanced", RARE)
TABLES = {
    RING: EVEN,
    replace(RING, split="dirichlet-0.3"): SKEWED,
    replace(RING, split="exclusive-2"): FAR_APART,
    replace(RING, task="reuters-r8"): EVEN,
    replace(RING, task="reuters-r8", split="dirichlet-0.3"): SKEWED,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1)
    jobs = parser.parse_args().jobs
    # whole seeds first: whoever stops in the middle has a table
    cells = [(setting, method, seed) for seed in SEEDS for setting, methods in TABLES.items() for method in methods]
    run_all(cells, jobs)
    runs = [run for run in read_results() if run.setting in TABLES]
    groups = {title(setting): [run for run in runs if run.setting == setting] for setting in TABLES}
    tables = [markdown(name, rows(own)) for name, own in groups.items() if own]
    (DOCS / "learning-final.md").write_text("\n".join(tables))
    draw(groups, DOCS / "learning.png")


if __name__ == "__main__":
    main()
