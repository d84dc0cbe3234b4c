"""docs/reliability.md from what the lab has printed: ``python -m tests.e2e.reliability.page LINES``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.daemon.processes import ROOT

PAGE = ROOT / "docs" / "reliability.md"
MIB = 1024 * 1024

TEMPLATE = Path(__file__).with_name("page.md")


def page(lines: Iterable[str], machine: str) -> str:
    documents = [json.loads(line) for line in lines]
    outcomes = [document for document in documents if "fault" in document]
    after = [document["accuracy"] for document in outcomes if "accuracy" in document]
    held = [document for document in documents if "held" in document]
    return TEMPLATE.read_text().format(
        machine=machine,
        first=after[0][0],
        last=after[-1][1],
        rows="\n".join(map(row, outcomes)),
        flat="\n".join(line for document in held for line in flat(document)),
        week=held[-1],
    )


def row(outcome: dict[str, Any]) -> str:
    seconds = f"{outcome['seconds']:.1f} s"
    if outcome["loading"]:
        seconds += f" ({outcome['loading']:.1f} s)"
    return f"| {outcome['fault']} | {outcome['happened']} | {seconds} | {outcome['lost']} |"


def flat(document: dict[str, Any]) -> Iterator[str]:
    for process in ("daemon", "trainer"):
        memory, files, threads, disk = zip(*(use.values() for use in document[process]), strict=True)
        in_mib = [f"{early / MIB:.1f} → {late / MIB:.1f} MiB" if late else "" for early, late in (memory, disk)]
        counts = [f"{early} → {late}" for early, late in (document["rounds"], files, threads)]
        name = f"{process} ({document['held']})"
        yield f"| {name} | {counts[0]} | {in_mib[0]} | {counts[1]} | {counts[2]} | {in_mib[1]} |"


def this_machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{len(models)} shared cores of an {models[0]}"


if __name__ == "__main__":
    PAGE.write_text(page(Path(sys.argv[1]).read_text().splitlines(), this_machine()))
