"""One aggregation round of decaf-node beside Flower, p2pfl and hivemind: how long, how many bytes, how much memory.

Four nodes hold the same LoRA adapter in float32 and do not train: each adds a constant, and then all are to hold the
mean of all four. Each framework is set up as its own documentation says, in an environment of its own under .peers/,
and takes its turn in between the others; "What each includes" says what one gets for it.

- **seconds**: from when all nodes have trained until all hold the mean, in the second round;
- **sent**: bytes that all machines send from one round to the next, each byte once, with all that belongs to it;
- **memory**: of the processes of one node together, and of all machines, a server's too, at most, in the third. Files
  do not count: decaf-node's snapshots, 2n + 2 adapters for n neighbours, lie in /run. Of these hivemind alone has
  loaded torch, as it must; with real training all have.

Every node is a host of its own, a network namespace on one switch; all share the cores of this machine. Run as root.
Prints tables and writes benchmarks/results/peers.json.

    python -m benchmarks.peers.compare [--mb 64] [--turns 3] [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.peers.lab import Turn
from benchmarks.peers.rounds import MIB
from tests.daemon.network_lab import ALONE

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
ENVIRONMENTS = ROOT / ".peers"


@dataclass(frozen=True)
class Framework:
    """How it is installed, and what it includes. requirements: for pip; none: it is this project."""

    module: str
    requirements: tuple[str, ...]
    server: str
    tls: str
    wire: str
    disk: str
    mean: str


FRAMEWORKS = {
    "decaf-node": Framework(
        "with_decaf_node",
        (),
        server="none",
        tls="mutual TLS, members only",
        wire="safetensors, hashed and checked",
        disk="snapshots; history and saves, which are not in the seconds",
        mean="exact, as every node has every other as its neighbour; arrays as they are: products take a mix (mix)",
    ),
    "flower": Framework(
        "with_flower",
        ("flwr==1.42.0",),
        server="SuperLink and ServerApp, a fifth machine",
        tls="off, as in its quick start; can be had",
        wire="NumPy's own format, without pickle",
        disk="none, all in memory",
        mean="exact, by the server; a node starts a process a message, asks every 3 s, an array a request",
    ),
    "p2pfl": Framework(
        "with_p2pfl",
        # without the extra, and with what is newest of the others, it cannot be imported
        ("p2pfl[dp]==0.4.4", "pyarrow==20.0.0", "huggingface_hub==0.36.0"),
        server="none",
        tls="off, until certificates are made by hand",
        wire="pickle",
        disk="none but logs",
        mean="exact; gossiped as partial sums, with pauses between",
    ),
    "hivemind": Framework(
        "with_hivemind",
        (f"torch=={version('torch').partition('+')[0]}", "hivemind==1.1.12"),  # the torch that is here already
        server="none; a DHT",
        tls="TLS 1.3, anyone may join",
        wire="protobuf and raw numbers, no pickle",
        disk="none",
        mean="exact in a group of four, each sums a part; finding the group counts",
    ),
}


def python_of(name: str) -> Path:
    """Return the Python that has the framework, after installing it where that is due."""
    requirements = FRAMEWORKS[name].requirements
    if not requirements:
        return Path(sys.executable)
    folder = ENVIRONMENTS / name
    python, installed = folder / "bin" / "python", folder / "installed"
    if not installed.exists() or installed.read_text().split() != [*requirements]:
        print(f"Installing {', '.join(requirements)} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)  # noqa: S603
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)  # noqa: S603
        installed.write_text("\n".join(requirements))
    return python


def turn(name: str, mb: int) -> Turn:
    """Run a few rounds of it."""
    try:
        python = python_of(name)
    except subprocess.CalledProcessError as error:
        return Turn(error=f"It cannot be installed here: pip ended with exit code {error.returncode}.")
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        words = (sys.executable, "-m", "benchmarks.peers.lab", f"benchmarks.peers.{FRAMEWORKS[name].module}")
        done = subprocess.run(  # noqa: S603
            [*ALONE, *words, python, folder, str(mb)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        result = Turn(**json.loads(done.stdout))
        if result.error:
            tail = (Path(folder) / "log").read_text(errors="replace").splitlines()[-20:]
            print(f"{name}: {result.error}", *tail, sep="\n", flush=True)
    return result


def row(name: str, turns: Sequence[Turn], size: int) -> list[str]:
    """Return the table's row for a framework: its figures, or why there are none."""
    seconds = [each for turn in turns for each in turn.seconds]
    if not seconds:
        return [name, turns[-1].error]
    sent = statistics.median(each for turn in turns for each in turn.sent)
    failed = sum(bool(turn.error) for turn in turns)
    return [
        f"{name}, {failed} of {len(turns)} turns failed" if failed else name,
        f"{statistics.median(seconds):.1f} s",
        f"{min(seconds):.1f} - {max(seconds):.1f} s",
        f"{sent / 1e6:.0f} MB",
        f"{sent / size:.1f}",
        f"{max(turn.node for turn in turns) / 1e6:.0f} MB",
        f"{max(turn.all for turn in turns) / 1e6:.0f} MB",
    ]


def show(done: Mapping[str, Sequence[Turn]], size: int) -> None:
    columns = ("a round", "median", "fastest to slowest", "sent", "adapters", "memory of a node", "of all machines")
    figures = Table(*columns, title=f"An adapter of {size / 1e6:.0f} MB, four nodes")
    includes = Table("", "server", "TLS", "on the wire", "on the disk", "the mean", title="What each includes")
    for name, turns in done.items():
        figures.add_row(*row(name, turns, size))
        one = FRAMEWORKS[name]
        includes.add_row(name, one.server, one.tls, one.wire, one.disk, one.mean)
    Console().print(figures, includes)


def keep(done: Mapping[str, Sequence[Turn]], size: int) -> None:
    """Write what there is so far, each with what was installed for it; of others what there was stays."""
    document = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, turns in done.items():
        document[name] = {
            "machine": machine(),
            "day": datetime.now(timezone.utc).date().isoformat(),
            "bytes": size,
            "requirements": FRAMEWORKS[name].requirements,
            "turns": [asdict(one) for one in turns],
        }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


def main() -> int:
    """Return 1 where one of them has no figures at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=64, help="MiB of the adapter")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FRAMEWORKS))
    given = parser.parse_args()
    names = given.names or [*FRAMEWORKS]
    if unknown := {*names} - {*FRAMEWORKS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(FRAMEWORKS)}")
    if os.geteuid():
        parser.error("it makes network namespaces: run it as root")
    done: dict[str, list[Turn]] = {name: [] for name in names}
    for _ in range(given.turns):
        for name in names:
            done[name].append(turn(name, given.mb))
        keep({name: turns for name, turns in done.items() if turns[-1].seconds}, given.mb * MIB)
    show(done, given.mb * MIB)
    return 0 if all(any(one.seconds for one in turns) for turns in done.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
