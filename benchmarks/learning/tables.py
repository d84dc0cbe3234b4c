"""The results as tables: one for nodes, data and number of local steps, a row for method and length of a round.

python -m benchmarks.learning.tables > docs/learning-tables.md        all that is in benchmarks/results/learning.json
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from benchmarks.learning.results import read_results
from benchmarks.learning.runs import Run, Setting
from benchmarks.learning.task import VALIDATION

T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}  # by degrees of freedom
LEFT = ("method", "rate", "steps a round", "accuracy, %")
RIGHT = ("worst node", "mean adapter", "consensus", "tail", "interference", "MB sent")


def title(setting: Setting) -> str:
    """Return what all rows of a table have in common."""
    still = f", then {setting.still} rounds without" if setting.still else ""
    what = "images" if setting.task == "fashion-mnist" else "texts"
    base = "" if setting.dtype == "float32" else f", base in {setting.dtype}"
    in_step = " in step" if setting.in_step else ""
    looked = setting.look if setting.validation == VALIDATION else f"{setting.validation:,} {setting.look}"
    own_a = ", each its own A" if setting.own_a else ""
    sizes = "" if setting.sizes == "1" else f" on average (as {setting.sizes})"
    return (
        f"{setting.task}, {setting.split}, {setting.graph} of {setting.nodes}{in_step}, "
        f"{setting.share} {what} each{sizes}, rank {setting.ranks}{own_a}, "
        f"{setting.steps * setting.rounds} local steps{still}{base}; {looked} {what}"
    )


def table(name: str, runs: Sequence[Run], references: Sequence[str] = ()) -> str:
    """Return one table, as Markdown. runs: those whose settings have this ``title``.

    references: methods with which all others are compared, seed by seed; none: the first of those with most seeds.
    """
    groups: dict[tuple[str, float, int], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.method, run.setting.rate, run.setting.steps].append(run)
    most = max(groups.values(), key=len)
    beside = {one: next(own for (method, _, _), own in groups.items() if method == one) for one in references}
    beside = beside or {f"{most[0].method} ({most[0].setting.rate:g}, {most[0].setting.steps})": most}
    lines = [[*LEFT, *(f"beside {name}" for name in beside), *RIGHT]]
    lines += [["---"] * len(lines[0])]
    lines += [_row(own, list(beside.values())) for own in groups.values()]
    return "\n".join([f"**{name}**", "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def _row(runs: Sequence[Run], references: Sequence[Sequence[Run]]) -> list[str]:
    interferences = [run.interference for run in runs if run.interference is not None]
    return [
        runs[0].method,
        f"{runs[0].setting.rate:g}",
        str(runs[0].setting.steps),
        with_deviation([run.accuracy for run in runs]),
        *(with_interval(apart(runs, reference)) for reference in references),
        f"{100 * fmean(run.worst for run in runs):.1f}",
        f"{100 * fmean(run.mean for run in runs):.1f}",
        f"{fmean(run.consensus for run in runs):.3f}",
        f"{fmean(run.tail for run in runs):.3f}",
        f"{fmean(interferences):.3f}" if interferences else "",
        f"{fmean(run.bytes for run in runs) / 1e6:.1f}",
    ]


def apart(runs: Sequence[Run], reference: Sequence[Run]) -> list[float]:
    """Return by how much each run is more accurate than the reference's of the same seed."""
    known = {run.seed: run.accuracy for run in reference}
    return [run.accuracy - known[run.seed] for run in runs if run.seed in known]


def with_deviation(values: Sequence[float]) -> str:
    """Return mean ± standard deviation in percent, and of how many."""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.1f}{spread} ({len(values)})"


def with_interval(values: Sequence[float]) -> str:
    """Return the mean with its 95 % interval, in points (Student's t)."""
    if not values:
        return ""
    if len(values) < 2 or not any(values):
        return f"{100 * fmean(values):+.1f}" if any(values) else ""
    half = T_95.get(len(values) - 1, 1.96) * stdev(values) / math.sqrt(len(values))
    return f"{100 * fmean(values):+.1f} ± {100 * half:.1f}"


def by_title(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Return the runs of each table by its title."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[title(run.setting)].append(run)
    return groups


if __name__ == "__main__":
    print("# Every run of the learning bench\n\nWhat methods and columns mean is in [learning.md](learning.md).\n")
    for name, own in by_title(read_results()).items():
        print(table(name, own))
