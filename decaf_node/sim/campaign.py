"""Many seeds at once: on all cores of this machine, or on a Ray cluster. Outcomes come in the order of the seeds."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from decaf_node.errors import BadSettings, TryAgain
from decaf_node.sim.plan import Plan
from decaf_node.sim.run import Outcome, play

AHEAD = 8  # seeds a worker that wait to be played


def play_here(plan: Plan, seeds: Sequence[int], workers: int) -> Iterator[Outcome]:
    """Play the seeds in ``workers`` processes (one: in this one). Closing the iterator ends them at once."""
    if min(workers, len(seeds)) <= 1:
        for seed in seeds:
            yield play(plan, seed)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(seeds)), mp_context=context, initializer=_leave_signals)
    waiting: deque[Future[Outcome]] = deque()
    left = iter(seeds)
    try:
        for seed in left:
            waiting.append(pool.submit(play, plan, seed))
            if len(waiting) >= AHEAD * workers:
                break
        while waiting:
            outcome = waiting.popleft().result()
            if (seed := next(left, None)) is not None:
                waiting.append(pool.submit(play, plan, seed))
            yield outcome
    finally:
        _end(pool)


def play_on_ray(plan: Plan, seeds: Sequence[int], address: str) -> Iterator[Outcome]:
    """Play the seeds on the Ray cluster at ``address`` (``auto``: the one that this machine is part of; ``local``).

    Raises BadSettings ``simulate.no-ray`` where ray is not installed, TryAgain ``simulate.no-cluster``.
    """
    ray = _connect(address)
    try:
        task = ray.remote(play)
        left, waiting = iter(seeds), deque[Any]()
        ahead = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        for seed in left:
            waiting.append(task.remote(plan, seed))
            if len(waiting) >= ahead:
                break
        while waiting:
            outcome: Outcome = ray.get(waiting.popleft())
            if (seed := next(left, None)) is not None:
                waiting.append(task.remote(plan, seed))
            yield outcome
    finally:
        ray.shutdown()


def combined_trace(outcomes: Sequence[Outcome]) -> str:
    """Return one hash over all runs, hex."""
    together = hashlib.blake2b(digest_size=16)
    for outcome in outcomes:
        together.update(f"{outcome.seed} {outcome.trace}\n".encode())
    return together.hexdigest()


def cores() -> int:
    """Return how many processes may run at once."""
    return len(os.sched_getaffinity(0))


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise BadSettings(
            "simulate.no-ray", "--ray needs ray, which is not installed here; run pip install ray, or leave --ray out."
        ) from None
    try:
        ray.init(address=None if address == "local" else address, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise TryAgain("simulate.no-cluster", f"No Ray cluster answers at {address!r}: {error}") from error
    return ray


def _leave_signals() -> None:
    """Ctrl-C is for the parent, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end(pool: ProcessPoolExecutor) -> None:
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
