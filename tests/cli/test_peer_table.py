from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from decaf_node.cli.looking import peer_table
from tests.cli.reports import peer_report

FAR = replace(
    peer_report("gpu-lab-2"), addresses=("192.168.100.101:7433",), distance=12.345, weight=1.2e-05, clip_factor=0.123
)
UNMET = replace(FAR, heard_seconds=None, weight=None, distance=None, plain_distance=None, clip_factor=None)


def lines(width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(peer_table([peer_report(), FAR, UNMET]))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def test_distance_and_clip_factor_of_each_neighbour_are_shown_in_80_columns() -> None:
    head, near, far, unmet = (line.split() for line in lines(80))
    assert head[-4:] == ["weight", "distance", "clip", "address"]
    assert near[-4:] == ["0.50", "0.250", "1.00", "127.0.0.1:7433"]
    assert far[-4:] == ["1.2e-05", "12.345", "0.12", "192.168.100.101:7433"]
    assert unmet[-4:] == ["-", "-", "-", "192.168.100.101:7433"]
