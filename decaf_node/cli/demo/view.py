"""What the demo shows while it works: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from decaf_node.cli.demo.mesh import Node
from decaf_node.cli.words import duration, number, percent, size

LINE_SECONDS = 10.0  # between two lines where there is no terminal


class View:
    """Shows the nodes, then the progress of later work; to be used in a ``with``."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console = console
        self._rounds = rounds
        self._started = time.monotonic()
        self._said = ""
        self._said_at = -LINE_SECONDS
        self._told: set[str] = set()
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def nodes(self, nodes: Sequence[Node]) -> None:
        """Show the nodes as they are now."""
        if self._live:
            self._live.update(Group(node_table(nodes, self._rounds), *_notes(nodes), self._clock("The mesh trains")))
        else:
            rows = (f"{n.newsroom.name} {_phase(n)} {n.record.round} ({percent(n.record.accuracy)})" for n in nodes)
            self._line(f"The mesh, round and accuracy of {self._rounds} rounds: " + "; ".join(rows))
            self._tell_once(_notes(nodes))

    def work(self, what: str, done: float | None = None) -> None:
        """Show that ``what`` goes on; ``done`` is the share of it that is over, if that is known."""
        sentence = what if done is None else f"{what}: {done * 100:.0f} %"
        if self._live:
            self._live.update(self._clock(sentence))
        else:
            self._line(sentence)

    def say(self, *things: RenderableType) -> None:
        """Print what shall stay."""
        for thing in things:
            self._console.print(thing)

    def _line(self, sentence: str) -> None:
        now = time.monotonic()
        if sentence != self._said and now - self._said_at >= LINE_SECONDS:
            self._console.print(Text(sentence))
            self._said, self._said_at = sentence, now

    def _tell_once(self, notes: list[Text]) -> None:
        for note in notes:
            if note.plain not in self._told:
                self._console.print(note)
        self._told = {note.plain for note in notes}

    def _clock(self, sentence: str) -> Text:
        return Text(f"{sentence} ({duration(time.monotonic() - self._started)}; Ctrl-C stops it)", style="dim")


def node_table(nodes: Sequence[Node], rounds: int) -> Table:
    """Return the table of the nodes; it fits into 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("node", no_wrap=True)
    table.add_column("is", no_wrap=True, min_width=11)
    for column, width in (("round", 5), ("loss", 6), ("accuracy", 8), ("peers", 5), ("distance", 8), ("sent", 8)):
        table.add_column(column, justify="right", no_wrap=True, min_width=width)
    for node in nodes:
        record = node.record
        last = record.curve[-1] if record.points else None
        near = sum(peer.state == "alive" for peer in record.peers)
        style = {"gone": "red", "silent": "yellow", "starting": "dim"}.get(node.standing, "")
        table.add_row(
            node.newsroom.name,
            _phase(node),
            f"{record.round}/{rounds}",
            number(last.loss if last else None),
            percent(record.accuracy),
            str(near) if node.standing == "here" else "-",
            number(last.distance if last else None),
            size(record.sent_bytes),
            style=style,
        )
    return table


def _phase(node: Node) -> str:
    if node.standing != "here" or node.record.status is None:
        return node.standing
    status = node.record.status
    return "no trainer" if status.trainer.state == "lost" else status.phase


def _notes(nodes: Sequence[Node]) -> list[Text]:
    """Say what is wrong, and how a node that is gone is started again."""
    notes = []
    for node in nodes:
        if node.standing == "gone" and not node.failed:
            notes.append(Text(f"{node.newsroom.name} is gone{node.why}. Start it again, in another terminal, with:"))
            notes.append(Text(f"  {node.restart_command()}", style="cyan"))
        elif node.standing == "here" and node.record.status and node.record.status.problem:
            notes.append(Text(f"{node.newsroom.name}: {node.record.status.problem}", style="yellow"))
    return notes
