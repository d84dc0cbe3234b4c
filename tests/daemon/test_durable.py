"""Folders in which others could put what they like."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from decaf_node.daemon.durable import make_folder, refuse_shared
from decaf_node.errors import NotAllowed


def test_a_runtime_folder_of_our_own_is_fine(tmp_path: Path) -> None:
    make_folder(tmp_path / "run" / "decaf-node")
    refuse_shared(tmp_path / "run" / "decaf-node")


@pytest.mark.parametrize("open_one", ["run", "run/decaf-node"])
def test_in_a_place_for_everyone_a_folder_that_anyone_may_write_to_is_refused(tmp_path: Path, open_one: str) -> None:
    tmp_path.chmod(0o1777)
    make_folder(tmp_path / "run" / "decaf-node")
    (tmp_path / open_one).chmod(0o777)
    with pytest.raises(NotAllowed) as caught:
        refuse_shared(tmp_path / "run" / "decaf-node")
    assert caught.value.reason == "runtime.not-ours"


def test_a_folder_that_another_user_has_made_first_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "decaf-node")
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(NotAllowed):
        refuse_shared(tmp_path / "decaf-node")
