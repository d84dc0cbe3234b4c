"""The built-in trainer in several processes: ``python -m decaf_node.training.launch --processes N --socket PATH``.

It sets what torchrun would set, and no more: torchrun's store listens on every interface of the machine, for anyone.
Here the processes find each other by a file, and speak over loopback (and NCCL's own ways between GPUs). They end
together: when one has ended, the others get some seconds, and are killed. It exits as rank 0 does, which is the one
that has told the daemon why.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

LEASH = ("-m", "decaf_node.daemon.leash")  # a process of its own, not an import: none outlives us
WORKER = ("-m", "decaf_node.training.worker")
RENDEZVOUS_VARIABLE = "DECAF_NODE_RENDEZVOUS"
LAST_SECONDS = 5.0  # for the others, once one has ended
KILLED = 75  # may work later, as it is

Process = subprocess.Popen[bytes]


def main(arguments: list[str] | None = None) -> int:
    """Run the processes until the first of them ends; return the exit code of rank 0."""
    parser = argparse.ArgumentParser(prog="python -m decaf_node.training.launch", description=__doc__)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket of the daemon")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s %(message)s")
    with tempfile.TemporaryDirectory(prefix="decaf-node-ranks-") as folder:
        rendezvous = Path(folder, "rendezvous")
        ranks = [_start(rank, given.processes, given.socket, rendezvous) for rank in range(given.processes)]
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        _say_who_was_lost(ranks)
        _end(ranks)
    return ranks[0].returncode if ranks[0].returncode >= 0 else KILLED


def _start(rank: int, processes: int, socket: Path, rendezvous: Path) -> Process:
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    shared = {"OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    own = {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank)},
        **{"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)},
        RENDEZVOUS_VARIABLE: str(rendezvous),
    }
    command = [sys.executable, *LEASH, str(os.getpid()), *WORKER, "--socket", str(socket)]
    return subprocess.Popen(command, env={**shared, **os.environ, **own})  # noqa: S603 - ourselves, no shell


def _say_who_was_lost(ranks: Sequence[Process]) -> None:
    """Say it where a follower has ended first: only rank 0 can tell the daemon of itself."""
    for rank, process in enumerate(ranks):
        if rank and process.poll():
            code = process.returncode
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            logging.error("Process %d of the trainer's %d %s; the others end too.", rank, len(ranks), how)


def _end(ranks: Sequence[Process]) -> None:
    end = time.monotonic() + LAST_SECONDS
    for process in ranks:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end - time.monotonic()))
    for process in ranks:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
