"""The neighbours on the screen of ``decaf-node top``, a line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import set_cell_size
from rich.text import Text

from decaf_node.cli.top.sight import Sight
from decaf_node.cli.words import number, short_id
from decaf_node.daemon.reports import PeerReport

NAME_COLUMNS = 10, 32  # at least, at most
STYLES = {"gone": "red", "late": "yellow"}


@dataclass(frozen=True)
class Column:
    """Where there is no room, those on the right are left out."""

    title: str
    width: int
    of: Callable[[PeerReport], str]


def neighbour_lines(sight: Sight, width: int, most: int) -> list[Text]:
    """Return an empty line, a heading and the neighbours: at most ``most`` lines of ``width`` columns."""
    peers = sight.neighbours
    if not peers:
        return [Text(), Text("No neighbour has been seen yet.")][:most]
    shown = peers if len(peers) <= most - 2 else peers[: max(0, most - 3)]
    if not shown:
        return []
    columns, name = _fitting(_columns(sight), width)
    lines = [Text(_row("neighbour", [column.title for column in columns], name, columns), "bold")]
    for peer in shown:
        values = [column.of(peer) for column in columns]
        lines.append(Text(_row(peer.name or short_id(peer.node), values, name, columns), STYLES.get(peer.state, "")))
    if len(shown) < len(peers):
        lines.append(Text(f"and {len(peers) - len(shown)} more"))
    return [Text(), *lines]


def _columns(sight: Sight) -> list[Column]:
    mixes, status = sight.mixes_an_hour(), sight.status
    assert status is not None, "the state comes first"
    return [
        Column("state", 5, lambda peer: peer.state),
        Column("round", 7, lambda peer: str(peer.round)),
        Column("behind", 6, lambda peer: str(status.round - peer.round)),
        Column("weight", 6, lambda peer: number(peer.weight, 2)),
        Column("distance", 8, lambda peer: number(peer.distance)),
        Column("clip", 5, lambda peer: number(peer.clip_factor, 2)),
        Column("mixes/h", 7, lambda peer: str(mixes[peer.node])),
    ]


def _fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], int]:
    """Return the columns that fit beside the name, and how wide the name may be."""
    kept = list(columns)
    least, most = NAME_COLUMNS
    while kept and (room := width - sum(column.width + 1 for column in kept)) < least:
        kept.pop()
    return kept, min(most, room) if kept else width


def _row(name: str, values: Sequence[str], width: int, columns: Sequence[Column]) -> str:
    cells = [f" {value:>{column.width}}" for value, column in zip(values, columns, strict=True)]
    return set_cell_size(name, width) + "".join(cells)
