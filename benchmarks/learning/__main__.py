"""Compare methods: the same data, order, graph, steps and bytes for each, and one figure a seed.

Accuracy is the mean over the nodes, on the validation texts (``--test``: on the test texts, once, when all is chosen).
``mean``: of the nodes' adapters averaged, which is what the mesh knows together. Beside it ``centralized``: all data in
one place, as many steps, of all nodes' examples. Differences are paired by seed, with a 95 % interval (t). Each run is
kept in benchmarks/results/learning.json; those of the same plan that are in it already are not repeated. The files must
be there (``python tools/fetch_demo.py --texts``).

    python -m benchmarks.learning --task 20newsgroups --split dirichlet-0.3 --graph ring --nodes 10 --seeds 3
"""

from __future__ import annotations

import argparse
import os
from dataclasses import fields

from benchmarks.learning.methods import MIXINGS, method_of
from benchmarks.learning.results import is_there, keep, read_results
from benchmarks.learning.runs import Setting, models_of, try_out
from benchmarks.learning.tables import markdown, rows, title
from benchmarks.learning.tasks import load_task
from decaf_node.cli.demo.assets import find_assets
from decaf_node.training.offline import go_offline, quiet


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", default="20newsgroups", choices=("20newsgroups", "reuters-r8", "bbc"))
    parser.add_argument("--split", default="dirichlet-0.3", help="iid, dirichlet-ALPHA or exclusive-LABELS")
    parser.add_argument("--graph", default="ring")
    parser.add_argument("--ranks", default="8", help="of the nodes in turn, as 4/8/16")
    sizes = {"nodes": 10, "share": 200, "steps": 3, "rounds": 60, "still": 0, "seeds": 1}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--methods", nargs="*", default=[*MIXINGS], help=method_of.__doc__)
    parser.add_argument("--test", action="store_true", help="look at the test texts")
    given = parser.parse_args()
    factors = [method for method in given.methods if "/" in given.ranks and method.startswith("dlora")]
    if factors:
        parser.error(f"factors of other ranks cannot be averaged; leave out {', '.join(factors)}, by --methods")
    try:
        [method_of(method) for method in given.methods]
    except ValueError as error:
        parser.error(f"{error}; see --help")
    go_offline()
    quiet()
    assets = find_assets(None, os.environ)
    task, look = load_task(given.task, assets), "test" if given.test else "validation"
    names = [field.name for field in fields(Setting) if field.name != "look"]
    setting = Setting(**{name: getattr(given, name) for name in names}, look=look)
    models = models_of(setting, task, assets)
    for seed in range(given.seeds):
        for method in given.methods:
            if not is_there(setting, method, seed):
                run = try_out(setting, method, seed, models, task)
                print(f"{method}, seed {seed}: {100 * run.accuracy:.1f} % in {run.seconds:.0f} s", flush=True)
                keep(run)
    print(markdown(title(setting), rows([run for run in read_results() if title(run.setting) == title(setting)])))


if __name__ == "__main__":
    main()
