"""How comparisons look to a person."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from decaf_node.cli.words import NOTHING, count, day, number, percent

NOISE = "within noise"


def comparison_screen(document: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield the table, what the mesh adapter gains over each of the others, and how to read that."""
    models, round = document["models"], document["round"]
    yield Text(f"{document['file']}: {count(document['examples'], 'example')}")
    names = {"base": "base model", "alone": "own data alone", "mesh": f"mesh, round {round}"}
    if "alone" in models:
        names["alone"] += f", {count(models['alone']['steps'], 'step')} of {document['steps']:,}"
    table = _table("", "accuracy", "loss")
    for name, model in models.items():
        table.add_row(names[name], percent(model["accuracy"]), number(model["loss"]))
    yield table
    for name, gain in document["mesh_over"].items():
        yield Text(f"The mesh over {names[name].partition(',')[0]}: {_gain(gain)}.")
    yield Text("±: one standard error over the examples, in pairs; p: McNemar's exact test.", style="dim")
    if "alone" not in models:
        steps = count(document["steps"], "step")
        yield Text(f"What this node would reach by itself: add --alone, which trains {steps}.", style="dim")


def history_table(made: Sequence[dict[str, Any]]) -> Table:
    """Return one row a comparison: accuracies, or losses where there are none."""
    table = _table("compared at", "round", "base", "alone", "mesh", "examples", "file")
    for document in made:
        models = document["models"]
        cells = [_score(models.get(name)) for name in ("base", "alone", "mesh")]
        file = Path(document["file"]).name
        table.add_row(day(document["time"]), str(document["round"]), *cells, f"{document['examples']:,}", file)
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def _score(model: dict[str, Any] | None) -> str:
    if model is None:
        return NOTHING
    return number(model["loss"]) if model["accuracy"] is None else percent(model["accuracy"])


def _gain(gain: dict[str, Any]) -> str:
    parts = []
    if gain["accuracy"] is not None:
        found = gain["accuracy"]
        split = f"{found['won']} won, {found['lost']} lost, p {_likelihood(found['p'])}"
        points = f"accuracy {100 * found['accuracy']:+.1f} ± {100 * found['error']:.1f} points ({split})"
        parts.append(points + _noise(found))
    loss = gain["loss"]
    error = "unknown" if loss["error"] is None or loss["error"] == math.inf else number(loss["error"])
    parts.append(f"loss {loss['loss']:+.3f} ± {error}" + _noise(loss))
    return "; ".join(parts)


def _noise(found: dict[str, Any]) -> str:
    return f", {NOISE}" if found["noise"] else ""


def _likelihood(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
