"""``decaf-node demo``: four nodes on this machine learn together. Everything stays on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from decaf_node.cli.options import JsonOption
from decaf_node.errors import UsageError


def demo(
    llm: Annotated[bool, typer.Option("--llm", help="A language model answers in words.")] = False,
    iid: Annotated[bool, typer.Option("--iid", help="Every node holds all topics, but little of each.")] = False,
    model: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--model", metavar="DIR", help="A model folder of your own."),
    ] = None,
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--data", metavar="FILE", help="Your own texts: JSONL, CSV or Parquet."),
    ] = None,
    label_column: Annotated[str, typer.Option("--label-column", metavar="NAME", help="Its labels.")] = "label",
    text_column: Annotated[str, typer.Option("--text-column", metavar="NAME", help="Its texts.")] = "text",
    assets: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--assets", metavar="DIR", help="Where `make demo` has put the demo's files (default: .demo)."),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", metavar="DIR", help="For plot and adapter (default: a new folder in decaf-demo)."),
    ] = None,
    rounds: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--rounds", min=1, max=1000, help="Rounds to train."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Deals the articles and starts the training.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the nodes' folders, with their logs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let four nodes on this machine learn together.

    They play newsrooms. Each has a trainer process of its own, and holds articles of two of five topics. At the end
    it compares: each alone, in the mesh, all articles in one place. Takes about three minutes on two CPU cores,
    needs no GPU, and sends nothing beyond this machine.

    Example: decaf-node demo --iid
    """
    from decaf_node.cli.demo.play import Choices, play

    if data is None and (label_column, text_column) != ("label", "text"):
        raise UsageError("demo.columns-without-data", "--label-column and --text-column go with --data; name a file.")
    play(Choices(llm, iid, model, data, label_column, text_column, assets, output, rounds, seed, keep, as_json))
