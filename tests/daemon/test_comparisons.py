from __future__ import annotations

from pathlib import Path

import pytest

from decaf_node.daemon.comparisons import FILE, FOLDER, KEPT, comparisons, keep_comparison
from decaf_node.errors import BadData, NotAllowed


def test_the_newest_are_kept_and_come_last(tmp_path: Path) -> None:
    assert comparisons(tmp_path) == []
    keep_comparison(tmp_path, {"round": 0, "error": float("inf")})
    assert comparisons(tmp_path) == [{"round": 0, "error": None}]
    path = tmp_path / FOLDER / FILE
    path.write_text("".join(f'{{"round": {number}}}\n' for number in range(1, KEPT + 1)))
    keep_comparison(tmp_path, {"round": KEPT + 1})
    assert [one["round"] for one in comparisons(tmp_path)] == list(range(2, KEPT + 2))
    assert path.stat().st_mode & 0o077 == 0


def test_a_damaged_file_is_said_and_not_written_over(tmp_path: Path) -> None:
    keep_comparison(tmp_path, {"round": 1})
    path = tmp_path / FOLDER / FILE
    path.write_text('{"round": 1}\n{"rou')
    for use in (lambda: comparisons(tmp_path), lambda: keep_comparison(tmp_path, {})):
        with pytest.raises(BadData) as caught:
            use()
        assert caught.value.reason == "state.damaged-file"
    assert path.read_text().endswith('{"rou')


def test_where_nothing_can_be_kept_it_is_said(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    with pytest.raises(NotAllowed) as caught:
        keep_comparison(tmp_path, {})
    assert caught.value.reason == "disk.not-a-folder"
