"""Many seeds at once: on all cores of this machine, or on a Ray cluster. Outcomes come in the order of the seeds."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import multiprocessing
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from decaf_node.errors import BadSettings, TryAgain
from decaf_node.sim.plan import Plan
from decaf_node.sim.progress import Progress, Told
from decaf_node.sim.run import Outcome, play

AHEAD = 8  # seeds a worker that wait to be played
LOOK_SECONDS = 0.5  # between two looks at how far the workers are
ANSWERS_WITHIN = 5.0  # seconds; Ray itself would try for minutes
PR_SET_PDEATHSIG = 1  # prctl(2): the signal that comes when the parent dies

Ticket = TypeVar("Ticket")
Played = Generator[Outcome, None, None]


def play_here(plan: Plan, seeds: Sequence[int], workers: int, told: Told = lambda seconds, steps: None) -> Played:
    """Play the seeds in ``workers`` processes (one: in this one). Closing the generator ends them at once.

    told: hears now and then how far it is. Call it from the main thread: the workers live no longer than that.
    Raises TryAgain ``simulate.worker-killed``.
    """
    workers = min(workers, len(seeds))
    context = multiprocessing.get_context("spawn")
    progress = Progress(context)
    if workers <= 1:
        yield from (progress.play(plan, seed, told) for seed in seeds)
        return
    pool = ProcessPoolExecutor(workers, context, _begin_worker, (progress,))

    def submit(seed: int) -> Future[Outcome]:
        with _without_interrupt():  # workers are started by this, and inherit it: Ctrl-C is for the parent
            return pool.submit(_play_in_worker, plan, seed)

    def result(future: Future[Outcome]) -> Outcome:
        while not wait([future], LOOK_SECONDS).done:
            told(*progress.read())
        return future.result()

    try:
        yield from _in_order(seeds, AHEAD * workers, submit, result)
    except BrokenProcessPool as error:
        sentence = "A worker process was killed, perhaps for want of memory; run it again, with fewer --jobs."
        raise TryAgain("simulate.worker-killed", sentence) from error
    finally:
        _end(pool)


def play_on_ray(plan: Plan, seeds: Sequence[int], address: str) -> Played:
    """Play the seeds on the Ray cluster at ``address`` (``auto``: the one that this machine is part of; ``local``: one
    of its own). The machines of the cluster need this version of decaf-node.

    Raises BadSettings ``simulate.no-ray`` where ray is not installed, TryAgain ``simulate.no-cluster`` and
    ``simulate.worker-killed``.
    """
    ray = _connect(address)
    task = ray.remote(play)
    ahead = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    try:
        yield from _in_order(seeds, ahead, lambda seed: task.remote(plan, seed), ray.get)
    except ray.exceptions.RayError as error:
        sentence = f"A task on the Ray cluster has failed: {str(error).strip().splitlines()[-1]}"
        raise TryAgain("simulate.worker-killed", sentence) from error
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


def _in_order(
    seeds: Sequence[int], ahead: int, submit: Callable[[int], Ticket], wait: Callable[[Ticket], Outcome]
) -> Iterator[Outcome]:
    """Submit each seed, at most ``ahead`` at a time, and wait for one after the other."""
    waiting: deque[Ticket] = deque()
    for seed in seeds:
        waiting.append(submit(seed))
        if len(waiting) >= ahead:
            yield wait(waiting.popleft())
    while waiting:
        yield wait(waiting.popleft())


def _connect(address: str) -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when ray is imported: it would report to its makers
    try:
        import ray
    except ImportError:
        sentence = (
            "--ray needs ray, which is not installed here; run pip install 'decaf-node[ray]', or leave --ray out."
        )
        raise BadSettings("simulate.no-ray", sentence) from None
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise TryAgain("simulate.no-cluster", f"No Ray cluster answers at {address!r}: {error}") from error
    return ray


def _knock(address: str) -> None:
    """Raise OSError, OverflowError or ValueError if nothing listens at an address of the form HOST:PORT."""
    if address not in ("auto", "local"):
        host, _, port = address.removeprefix("ray://").rpartition(":")
        socket.create_connection((host, int(port)), ANSWERS_WITHIN).close()


@contextmanager
def _without_interrupt() -> Iterator[None]:
    """Put SIGINT off to the end of the block; a process that is started in it never gets one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(progress: Progress) -> None:
    """Play for a parent that counts ``progress``, and end with it."""
    global _progress
    _progress = progress
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


_progress: Progress  # of a worker: a pool hands it over when the worker starts, not with a task


def _play_in_worker(plan: Plan, seed: int) -> Outcome:
    return _progress.play(plan, seed)


def _end(pool: ProcessPoolExecutor) -> None:
    """Have the workers end at once. The pool is joined, or Python would do it at its exit and be interrupted there."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)
