"""Cells of the bench in so many processes. What has been run is not run again."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import torch

from benchmarks.learning.results import is_there, keep
from benchmarks.learning.runs import Run, Setting, models_of, try_out
from benchmarks.learning.tasks import load_task
from decaf_node.cli.demo.assets import find_assets
from decaf_node.daemon.leash import PR_SET_PDEATHSIG
from decaf_node.training.offline import go_offline, quiet

Cell = tuple[Setting, str, int]
"""Setting, method, seed."""


def run_all(cells: Iterable[Cell], jobs: int) -> None:
    """Run the cells in their order; say and keep each result once it is there."""
    with ProcessPoolExecutor(jobs, get_context("spawn"), _die_with, (os.getpid(),)) as processes:
        running = [processes.submit(_run, *cell) for cell in cells if not is_there(*cell)]
        try:
            for done in as_completed(running):
                run = done.result()
                keep(run)
                said = f"{run.setting.task}, {run.setting.split}, {run.method}, seed {run.seed}"
                print(f"{said}: {100 * run.accuracy:.1f} % in {run.seconds:.0f} s", file=sys.stderr)
        finally:
            processes.shutdown(cancel_futures=True)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it was gone before we asked


def _run(setting: Setting, method: str, seed: int) -> Run:
    torch.set_num_threads(1)
    go_offline()
    quiet()
    task = load_task(setting.task, find_assets(None, os.environ), setting.validation)
    return try_out(setting, method, seed, models_of(setting, task), task)
