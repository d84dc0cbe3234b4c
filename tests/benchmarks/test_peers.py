"""The benchmark of frameworks side by side: what it reads of the kernel, and the rows of its table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.compare import FRAMEWORKS, row, show
from benchmarks.peers.lab import Failed, Turn, exchange, proportional, received
from benchmarks.peers.rounds import MIB, NODES, Rounds, adapter, ends_of, mark

NET_DEV = """\
Inter-|   Receive                    |  Transmit
 face |bytes    packets errs drop fifo|bytes    packets errs drop fifo
    lo:     120       2    0    0    0      120       2    0    0    0
  to-a:67108864   45000    0    0    0  1048576     900    0    0    0
"""
ROLLUP = """\
00400000-7ffd1000 ---p 00000000 00:00 0                                  [rollup]
Rss:               20480 kB
Pss:               10240 kB
Pss_Dirty:          4096 kB
"""
TURN = Turn((2.0, 4.0), (402653184, 402653184), 250_000_000, 1_000_000_000)


def test_what_the_kernel_says_of_bytes() -> None:
    assert received(NET_DEV) == {"lo": 120, "to-a": 67108864}


def test_shared_pages_count_in_part_and_a_process_that_ends_has_none() -> None:
    assert proportional(ROLLUP) == 10240 * 1024
    assert proportional("") == 0


def test_an_adapter_is_as_large_as_asked_and_the_same_everywhere() -> None:
    arrays = adapter(2)
    assert sum(array.nbytes for array in arrays) == 2 * MIB
    assert all(np.array_equal(one, other) for one, other in zip(arrays, adapter(2), strict=True))


def test_rows_of_figures_and_of_what_failed() -> None:
    size = 64 * MIB
    assert row("p2pfl", [TURN], size) == ["p2pfl", "3.0 s", "2.0 - 4.0 s", "403 MB", "6.0", "250 MB", "1000 MB"]
    assert row("p2pfl", [TURN, Turn(error="It ended.")], size)[:2] == ["p2pfl, 1 of 2 turns failed", "3.0 s"]
    assert row("p2pfl", [Turn(error="It ended.")], size) == ["p2pfl", "It ended."]


def test_what_is_shown_says_what_each_includes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    show({name: [TURN] for name in FRAMEWORKS}, 64 * MIB)
    printed = capsys.readouterr().out
    assert all(name in printed for name in FRAMEWORKS)
    assert "pickle" in printed


def test_a_round_ends_when_the_last_node_holds_what_the_others_do(tmp_path: Path) -> None:
    arrays = adapter(1)
    for node in NODES:
        rounds = Rounds(tmp_path, node)
        mark(tmp_path, "go", 1).touch()
        rounds.train(arrays)
        rounds.holds(arrays)
    assert mark(tmp_path, "trained", 1, "d").exists()
    begun = ends_of(arrays)
    assert exchange(tmp_path, 1, begun, lambda: True) < 0, "they have held it since before it was asked"

    def after(round: int, added: Mapping[str, float]) -> float:
        for node in NODES:
            rounds = Rounds(tmp_path, node)
            rounds.round, rounds.held = round, False
            rounds.holds([array + np.float32(added[node]) for array in arrays])
        return exchange(tmp_path, round, begun, lambda: True)

    assert after(2, dict.fromkeys(NODES, 5.0)) < 0
    with pytest.raises(Failed, match="do not hold the mean"):
        after(3, dict.fromkeys(NODES, 7.0))
    with pytest.raises(Failed, match="do not hold the mean"):
        after(4, {"a": 9.0, "b": 10.0, "c": 10.0, "d": 11.0})
