"""Compare methods: the same data, order, graph, steps and bytes for each, and one figure a seed.

Accuracy is the mean over the nodes, on the validation part (``--test``: on the test part, once, when all is chosen).
``mean``: of the nodes' adapters averaged, which is what the mesh knows together. Beside it ``centralized``: all data in
one place, as many steps, of all nodes' examples. Differences are paired by seed, with a 95 % interval (t). Each run is
kept in benchmarks/results/learning.json; those of the same plan that are in it already are not repeated. The files must
be there (``python tools/fetch_demo.py --texts --llm --vision``, and Debian's dataset-fashion-mnist).

    python -m benchmarks.learning --task 20newsgroups --split dirichlet-0.3 --graph ring --nodes 10 --seeds 3
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import fields

from benchmarks.learning.jobs import run_all
from benchmarks.learning.methods import MIXINGS, method_of
from benchmarks.learning.results import read_results
from benchmarks.learning.runs import Setting
from benchmarks.learning.tables import by_title, table, title
from benchmarks.learning.task import VALIDATION
from benchmarks.learning.tasks import ANSWERED, TASKS
from decaf_node.mesh.topology import longest_period

SPLITS = re.compile(r"iid|domain|dirichlet-\d*\.?\d+|exclusive-\d+")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", default="20newsgroups", choices=[*TASKS])
    parser.add_argument("--split", default="dirichlet-0.3", help="iid, dirichlet-ALPHA, exclusive-LABELS or domain")
    parser.add_argument("--graph", default="ring")
    parser.add_argument("--ranks", default="8", help="of the nodes in turn, as 4/8/16")
    parser.add_argument("--sizes", default="1", help="of the nodes' shares in turn, one to another, as 1/2/4")
    numbers = {
        "nodes": 10,
        "share": 200,
        "steps": 3,
        "rounds": 60,
        "still": 0,
        "validation": VALIDATION,
        "seeds": 1,
        "jobs": 1,
    }
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--methods", nargs="*", default=[*MIXINGS], help=method_of.__doc__)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the frozen base")
    parser.add_argument("--in-step", action="store_true", help="mix all at once, without the machine")
    parser.add_argument("--own-a", action="store_true", help="each node begins with an A of its own")
    parser.add_argument("--test", action="store_true", help="look at the test part")
    given = parser.parse_args(arguments)
    try:
        methods = {name: method_of(name) for name in given.methods}
    except ValueError as error:
        parser.error(f"{error}; see --help")
    factors = [name for name, method in methods.items() if method.mixing in ("factors", "b alone")]
    if factors and "/" in given.ranks:
        parser.error(f"factors of other ranks cannot be averaged; leave out {', '.join(factors)}, by --methods")
    if given.own_a and any(method.mixing == "b alone" for method in methods.values()):
        parser.error("dlora-fa needs one A for all; leave it out, by --methods")
    if not SPLITS.fullmatch(given.split) or (given.split == "domain" and given.task != "20newsgroups"):
        parser.error(f"{given.task} cannot be dealt as {given.split}; see --help")
    if given.dtype != "float32" and any(method.in_use for method in methods.values()):
        parser.error("a residual is in use in float32 only")
    if any(method.chebyshev for method in methods.values()) and longest_period(given.graph, given.nodes):
        parser.error("chebyshev needs a graph that stays the same from turn to turn")
    if given.in_step and any(method.wire == "compact" for method in methods.values()):
        parser.error("compact's bytes are counted by the network; leave out --in-step")
    of_labels = [name for name, method in methods.items() if method.of_labels]
    if of_labels and given.task in ANSWERED:
        parser.error(f"{given.task} has no head with labels to weigh; leave out {', '.join(of_labels)}, by --methods")
    names = [field.name for field in fields(Setting) if field.name != "look"]
    setting = Setting(**{name: getattr(given, name) for name in names}, look="test" if given.test else "validation")
    run_all([(setting, method, seed) for seed in range(given.seeds) for method in given.methods], given.jobs)
    print(table(title(setting), by_title(read_results())[title(setting)]))


if __name__ == "__main__":
    main()
