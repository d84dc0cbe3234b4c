"""What has been run: benchmarks/results/learning.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.learning.runs import Run, Setting

RESULTS = Path(__file__).parents[1] / "results" / "learning.json"


def read_results() -> list[Run]:
    if not RESULTS.exists():
        return []
    documents = json.loads(RESULTS.read_text())
    return [Run(**document | {"setting": Setting(**document["setting"])}) for document in documents]


def is_there(setting: Setting, method: str, seed: int) -> bool:
    return any((run.setting, run.method, run.seed) == (setting, method, seed) for run in read_results())


def keep(run: Run) -> None:
    runs = [*read_results(), run]  # another process may have added to them
    fresh = RESULTS.with_suffix(".new")
    fresh.write_text(json.dumps([asdict(one) for one in runs], indent=1) + "\n")
    fresh.replace(RESULTS)
