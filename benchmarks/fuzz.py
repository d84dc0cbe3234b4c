"""Fuzz every parser that reads from the network or from a token: crashes, hangs, growth of memory.

    python -m benchmarks.fuzz --inputs 1000000 --seed 1

The parsers, their seeds and the changes are those of ``tests/fuzz``. Inputs are dealt to the parsers in turn, so that
growth is seen over all of them. The input of a crash is written beside the results; a run is a function of its seed,
apart from the keys in the certificates.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import signal
import sys
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz.mutate import mutate
from tests.fuzz.parsers import PARSERS, Parser, survives

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
HANG_SECONDS = 10
TURN = 200  # inputs of one parser before the next has its turn
WARM = 0.1  # of all inputs, before memory is measured
CRASHES_KEPT = 20


class Hung(BaseException):
    """A parser has not come back; no parser can catch this."""


@dataclass
class Row:
    """What one parser did. Times are of the processor: a busy machine does not lengthen them much."""

    parser: str
    inputs: int = 0
    taken: int = 0
    seconds: float = 0.0
    slowest_ms: float = 0.0
    crashes: int = 0


@dataclass
class Outcome:
    """What all did. rss in MiB."""

    rows: list[Row]
    crashes: list[dict[str, str]] = field(default_factory=list)
    rss_warm: float = 0.0
    rss_end: float = 0.0


def run(parsers: tuple[Parser, ...], inputs: int, seed: int) -> Outcome:
    """Feed so many inputs, ``TURN`` to each parser in turn."""
    random = Random(seed)
    outcome = Outcome([Row(parser.name) for parser in parsers])
    done, turn = 0, 0
    while done < inputs:
        parser, row = parsers[turn % len(parsers)], outcome.rows[turn % len(parsers)]
        for _ in range(min(TURN, inputs - done)):
            feed(parser, row, mutate(parser.seeds, random), outcome)
        done, turn = done + TURN, turn + 1
        if done <= inputs * WARM:
            outcome.rss_warm = rss()
        if turn % (10 * len(parsers)) == 0:
            print(f"{min(done, inputs):,} of {inputs:,}", file=sys.stderr, flush=True)
    outcome.rss_end = rss()
    return outcome


def feed(parser: Parser, row: Row, data: bytes, outcome: Outcome) -> None:
    """Have the parser read one input, and note how it went."""
    signal.alarm(HANG_SECONDS)
    begun = time.process_time()
    try:
        row.taken += survives(parser, data)
    except (Exception, Hung) as error:  # noqa: BLE001 - this is what is looked for
        row.crashes += 1
        if len(outcome.crashes) < CRASHES_KEPT:
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
            outcome.crashes.append({"parser": parser.name, "error": said[:300], "input": data.hex()})
    finally:
        signal.alarm(0)
    passed = time.process_time() - begun
    row.inputs += 1
    row.seconds += passed
    row.slowest_ms = max(row.slowest_ms, 1000 * passed)


def rss() -> float:
    """Return the resident memory of this process in MiB (Linux: statm counts pages)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def hung(number: int, frame: FrameType | None) -> None:
    """Take the alarm."""
    raise Hung(f"no answer within {HANG_SECONDS} s")


def table(outcome: Outcome) -> str:
    """Return the table for people."""
    lines = ["| parser | inputs | taken | us each | slowest ms | crashes |", "|---|--:|--:|--:|--:|--:|"]
    for row in outcome.rows:
        share, each = row.taken / max(row.inputs, 1), 1e6 * row.seconds / max(row.inputs, 1)
        lines.append(
            f"| {row.parser} | {row.inputs:,} | {share:.0%} | {each:.0f} | {row.slowest_ms:.1f} | {row.crashes} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run, print the table, write the results; exit code 1 where something was found."""
    parse = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parse.add_argument("--inputs", type=int, default=100_000)
    parse.add_argument("--seed", type=int, default=1)
    parse.add_argument("--out", type=Path, default=RESULTS)
    given = parse.parse_args()
    signal.signal(signal.SIGALRM, hung)
    warnings.simplefilter("error")  # as in the tests: a warning about input is a finding too
    begun = time.monotonic()
    outcome = run(PARSERS, given.inputs, given.seed)
    seconds = time.monotonic() - begun
    print(table(outcome))
    grown = outcome.rss_end - outcome.rss_warm
    slowest = max(row.slowest_ms for row in outcome.rows)
    crashes = sum(row.crashes for row in outcome.rows)
    print(
        f"\n{given.inputs:,} inputs in {seconds:.0f} s; slowest {slowest:.1f} ms; memory grew by {grown:.1f} MiB after "
        f"the first tenth, to {outcome.rss_end:.0f} MiB; {crashes} crashes."
    )
    document = {
        "inputs": given.inputs,
        "seed": given.seed,
        "seconds": round(seconds, 1),
        "python": platform.python_version(),
        "slowest_ms": round(slowest, 1),
        "rss_mib": {"warm": round(outcome.rss_warm, 1), "end": round(outcome.rss_end, 1)},
        "crashes": outcome.crashes,
        "parsers": [asdict(row) for row in outcome.rows],
    }
    given.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
