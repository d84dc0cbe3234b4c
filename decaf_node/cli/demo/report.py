"""The demo's words: what is about to happen, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from decaf_node.cli.demo.newsrooms import Newsroom
from decaf_node.cli.demo.results import NodeResult, Results
from decaf_node.cli.demo.shares import holdings
from decaf_node.cli.export import loading_lines
from decaf_node.cli.words import duration, percent, size

REAL_MESH = """\
    # on the first machine: found a mesh; it prints what to type on the next
    decaf-node init --mesh lab --model /srv/models/your-model --data /srv/data/mine.jsonl
    # on each other machine: the same model; the data stay where they are
    decaf-node join decaf1-... --model /srv/models/your-model --data /srv/data/mine.jsonl

    decaf-node run                   # on each of them
    decaf-node status                # in another terminal\
"""


def introduction(newsrooms: Sequence[Newsroom], test_examples: int) -> RenderableType:
    """Say who holds what."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for room in newsrooms:
        held = ", ".join(f"{count} {label}" for label, count in holdings(room.share).items())
        table.add_row(f"  {room.name}", held)
    return Group(
        Text("Four newsrooms, each a node of its own, members of one mesh. Their articles stay where they are:"),
        table,
        Text(f"All are tested on the same {test_examples} articles over all topics, which none of them holds.\n"),
    )


@dataclass(frozen=True)
class Answers:
    """One question to a language model, answered before and after."""

    question: str
    expected: str
    before: str
    after: str


def conclusion(results: Results, answers: Answers | None, seconds: float) -> RenderableType:
    """Return the table of accuracies, how to read it, and what a language model answers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("accuracy of", no_wrap=True)
    table.add_column("holds", overflow="fold", max_width=38)
    table.add_column("alone", justify="right", no_wrap=True)
    table.add_column("in the mesh", justify="right", no_wrap=True)
    for node in results.nodes:
        table.add_row(node.name, ", ".join(node.holds), percent(node.alone), _in_the_mesh(node))
    table.add_row("mean", "", percent(results.alone), percent(results.mesh), style="bold", end_section=True)
    table.add_row("one place", "all articles", "", percent(results.centralized))
    return Group(
        Text(),
        table,
        Text(),
        *(Text(sentence) for sentence in _reading(results, seconds)),
        *(_exchange(answers) if answers else ()),
    )


def whereabouts(output: Path, exporter: str, model: Path) -> RenderableType:
    """Return where plot and adapter are, how to load the adapter, and what to type for a real mesh."""
    return Group(
        Text(f"\nCurves:  {output / 'curves.png'}"),
        Text(f"Adapter: {output / 'adapter'} (of {exporter}). Load it in Python with:\n"),
        Text(loading_lines(output / "adapter", model), style="cyan"),
        Text("\nA real mesh, on your own machines:\n"),
        Text(REAL_MESH, style="cyan"),
    )


def _exchange(answers: Answers) -> Iterator[Text]:
    yield Text("\nOne question, about a test article:")
    yield Text(indent(answers.question, "    "), style="dim")
    yield Text(f"before: {answers.before}")
    yield Text(f"after:  {answers.after}   (right: {answers.expected})")


def _in_the_mesh(node: NodeResult) -> str:
    return f"gone after round {node.round}" if node.left else percent(node.mesh)


def _reading(results: Results, seconds: float) -> Iterator[str]:
    seen = results.alone_bound
    if seen < 1:
        yield (
            f"Alone, a newsroom cannot do better than about {seen * 100:.0f} %: it has seen only some of the "
            f"{len(results.labels)} topics. So this shows that the mesh works, not by how much; `--iid` says more."
        )
    if len({node.mesh for node in results.stayed}) == 1 < len(results.stayed):
        yield "Each newsroom mixes with all others, so after a mix they all have the same model."
    if any(node.left for node in results.nodes):
        yield "The means are over the newsrooms that stayed; the others count for nothing."
    rate = "a learning rate that suits it" if results.own_rate else "the same learning rate"
    yield (
        '"One place" is one trainer with the articles of all four, as many steps as the four took together '
        f"({results.rounds} rounds), and {rate}."
    )
    yield (
        f"Measured on {results.test_examples} articles, one seed: the standard error of a figure is about "
        f"{results.standard_error * 100:.1f} points."
    )
    most = max(node.round for node in results.stayed)
    if most > results.rounds:
        yield f"The others went on while the slowest had its {results.rounds} rounds; one has had {most}."
    yield f"The nodes sent {size(results.sent_bytes)} in all; the demo took {duration(seconds)}."
