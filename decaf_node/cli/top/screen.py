"""The screen of ``decaf-node top``: as many lines as the terminal has, and none wider."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.cells import set_cell_size
from rich.console import Console
from rich.text import Text

from decaf_node.cli.top.curve import ASCII, BLOCKS, curve
from decaf_node.cli.top.neighbours import neighbour_lines
from decaf_node.cli.top.sight import Sight, is_warning
from decaf_node.cli.words import number, percent, short_id, size
from decaf_node.daemon.reports import RoundReport

WIDE = 60  # columns for two curves side by side
AXIS_COLUMNS = 9
CURVES_FROM = 20  # lines; where there are fewer, the neighbours are worth more
TALL = 40
LEFT = "q: quit"

Value = Callable[[RoundReport], float | None]


def screen(sight: Sight, console: Console) -> list[Text]:
    """Return the lines of what is known, as many as the console has. Nothing can be shown before the first state."""
    width, height = console.size
    head = [_title(sight), _figures(sight), *_verdict(sight, console, max(1, height // 4))]
    room = height - len(head) - 1
    curves = _curves(sight, console) if height >= CURVES_FROM else []
    near = neighbour_lines(sight, width, (room - len(curves)) * 3 // 5)
    events = _events(sight, room - len(curves) - len(near))
    lines = [*head, *near, *curves, *events][: height - 1]
    lines += [Text() for _ in range(height - 1 - len(lines))]
    return [*lines, Text(LEFT, "dim")]


def _title(sight: Sight) -> Text:
    status = sight.status
    assert status is not None, "the state comes first"
    others = "1 other" if sight.members == 1 else f"{sight.members} others"
    return Text(f"{status.name} ({short_id(status.node)}) in mesh {status.mesh}, {others} here", "bold")


def _figures(sight: Sight) -> Text:
    assert sight.status is not None
    parts = [f"round {sight.status.round}, {sight.status.phase}"]
    for name, of, words in (("loss", loss, number), ("accuracy", accuracy, percent), ("distance", distance, number)):
        if (value := _latest(sight.rounds, of)) is not None:
            parts.append(f"{name} {words(value)}")
    if (rate := sight.bytes_an_hour()) is not None:
        parts.append(f"{size(round(rate))}/h")
    return Text("   ".join(parts))


def _verdict(sight: Sight, console: Console, most: int) -> list[Text]:
    """Say what is wrong, with its remedy."""
    if sight.lost is not None:
        texts = [Text(f"! Connection lost, trying again; what you see is old. {sight.lost}", "bold yellow")]
    elif sight.problems:
        styles = ("bold red", "bold yellow")
        texts = [Text(f"! {problem.sentence}", styles[is_warning(problem)]) for problem in sight.problems]
    else:
        texts = [Text("Nothing is wrong.", "green")]
    return [line for text in texts for line in text.wrap(console, console.width)][:most]


def _curves(sight: Sight, console: Console) -> list[Text]:
    """Return the loss, and beside it, where there is room, what there is of accuracy, held-out loss or distance."""
    rounds = sight.rounds
    others = (("held-out accuracy", accuracy), ("held-out loss", held_out_loss), ("distance", distance))
    second = next(((name, of) for name, of in others if _latest(rounds, of) is not None), None)
    shown: list[tuple[str, Value]] = [("loss", loss)]
    if second is not None and console.width >= WIDE:
        shown.append(second)
    if _latest(rounds, loss) is None:
        return []
    width = (console.width - 2 * (len(shown) - 1)) // len(shown)
    height = 8 if console.height >= TALL else 4
    bars = ASCII if console.options.ascii_only else BLOCKS
    panels = [_panel(name, [of(row) for row in rounds], width, height, bars) for name, of in shown]
    beside = ["  ".join(parts).rstrip() for parts in zip(*panels, strict=True)]
    return [Text(), Text(beside[0], "bold"), *(Text(line, "cyan") for line in beside[1:])]


def _panel(name: str, values: Sequence[float | None], width: int, height: int, bars: str) -> list[str]:
    """Return a heading and a curve with its highest and lowest value at its left, each line ``width`` wide."""
    lines = curve(values, width - AXIS_COLUMNS, height, bars)
    axis = [""] * height
    if known := [value for value in lines.shown if value is not None]:
        axis[0], axis[-1] = number(max(known)), number(min(known))
    rows = [f"{label:>{AXIS_COLUMNS - 1}} {line}" for label, line in zip(axis, lines.text, strict=True)]
    heading = f"{name}, the last {len(values)} rounds"
    return [set_cell_size(text, width) for text in (heading, *rows)]


def _events(sight: Sight, most: int) -> list[Text]:
    return [Text(), *map(Text, sight.lines[-(most - 1) :])] if most > 1 else []


def _latest(rounds: Sequence[RoundReport], of: Value) -> float | None:
    return next((value for value in map(of, reversed(rounds)) if value is not None), None)


def loss(row: RoundReport) -> float | None:
    """Return the training loss; a round without steps has none."""
    return row.loss if row.steps else None


def accuracy(row: RoundReport) -> float | None:
    """Return the held-out accuracy."""
    return row.evaluation_accuracy


def held_out_loss(row: RoundReport) -> float | None:
    """Return the held-out loss."""
    return row.evaluation_loss


def distance(row: RoundReport) -> float | None:
    """Return the distance to the neighbours mixed."""
    return row.consensus_distance
