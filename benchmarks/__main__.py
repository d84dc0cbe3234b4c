"""Run benchmarks one after the other, and write docs/benchmarks.md with all that they have ever printed.

Each is a process of its own that prints tables and writes its figures to benchmarks/results; what it prints is kept
there too, with the machine and the day. All together are a night.

    python -m benchmarks [NAME ...]
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.machine import in_words, machine

HERE = Path(__file__).parent
PRINTED = HERE / "results" / "printed.json"
PAGE = HERE.parent / "docs" / "benchmarks.md"
MINUTES = {  # of two cores
    "mix": 10,
    "wire": 2,
    "commands": 1,
    "exchange": 4,
    "links": 6,
    "overlap": 40,
    "peers.compare": 25,
    "topologies": 2,
    "monitoring": 15,
    "simulate": 40,
    "fuzz": 3,
    "attacks": 10,
    "privacy": 30,
    "hostile": 120,
    "learning.final": 240,
}
KEEP = frozenset({"hostile", "learning.final"})  # what they have run is not run again
WIDTH = "150"  # of tables, in columns


@dataclass(frozen=True)
class Printed:
    """What a benchmark has printed. on: the machine; day: as 2026-11-30."""

    text: str
    on: dict[str, Any]
    day: str


def run(name: str) -> Printed | None:
    """Return what it prints; None if it has failed, after saying so."""
    print(f"{name}: about {MINUTES[name]} minutes ...", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": WIDTH})  # noqa: S603
    print(done.stdout, flush=True)
    if done.returncode:
        print(f"{name} has failed, with exit code {done.returncode}; what was printed before is kept.", flush=True)
        return None
    lines = "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())
    return Printed(lines, machine(), datetime.now(timezone.utc).date().isoformat())


def read_printed() -> dict[str, Printed]:
    if not PRINTED.exists():
        return {}
    return {name: Printed(**document) for name, document in json.loads(PRINTED.read_text()).items()}


def keep(name: str, done: Printed) -> None:
    """Put it in the place of what the benchmark printed before, and write the page."""
    printed = {**read_printed(), name: done}
    documents = {name: asdict(one) for name, one in printed.items()}
    PRINTED.write_text(json.dumps(documents, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(printed))


def page(printed: dict[str, Printed]) -> str:
    """Return docs/benchmarks.md."""
    parts = ["# Benchmarks", "", INTRODUCTION, ""]
    for name in MINUTES:
        if name in printed:
            one = printed[name]
            also = " Runs that were kept are older, and may be of other machines." if name in KEEP else ""
            parts += [f"## {name}", "", about(name), "", f"{one.day}, {in_words(one.on)}.{also}", ""]
            parts += ["```", one.text, "```", ""]
    return "\n".join(parts)


INTRODUCTION = """\
What `make bench` has measured: `make bench ARGS="mix wire"` runs two of them, `make bench` all, in a night, and this
page is written anew. The machines are shared with others and noisy: ratios are of things measured in turn in one run.
The figures behind the tables are in [benchmarks/results](../benchmarks/results), what nodes learn together in
[learning.md](learning.md)."""


def about(name: str) -> str:
    """Return the benchmark's own words on what it does: its docstring, without the command."""
    source = (HERE / f"{name.replace('.', '/')}.py").read_text()
    words = ast.get_docstring(ast.parse(source)) or ""
    return "\n".join(line for line in words.splitlines() if not line.startswith("    ")).strip().replace("``", "`")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MINUTES))
    names = parser.parse_args(arguments).names or [*MINUTES]
    if unknown := {*names} - {*MINUTES}:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(MINUTES)}")
    failed = False
    for name in names:
        if done := run(name):
            keep(name, done)
        else:
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
