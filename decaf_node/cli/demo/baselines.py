"""What to compare the mesh with: each node alone, and one trainer that holds everything."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from decaf_node.cli.demo.processes import last_words, start_python, stop_all
from decaf_node.cli.demo.sight import Point

Curves = dict[Path, list[Point]]


def train_alone(configs: Sequence[Path], log: Path, show: Callable[[Curves], None]) -> Curves:
    """Train each of ``configs`` in turn, in one process of its own, and ``show`` the curves as they grow.

    Raises the error of that process if it ends before all of them are trained.
    """
    curves: Curves = {config: [] for config in configs}
    arguments = ["-m", "decaf_node.training.alone", *map(str, configs)]
    process = start_python(arguments, log, stdout=subprocess.PIPE)
    try:
        show(curves)
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            curves[Path(said["config"])].append(Point(said["round"], said["accuracy"], said["loss"]))
            show(curves)
        code = process.wait()
    finally:
        stop_all([process])
    if code != 0 or not all(curves.values()):
        raise last_words(log, code)
    return curves
