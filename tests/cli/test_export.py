"""``decaf-node export``: whole, or not at all; never over something else unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decaf_node.daemon.exporting import copy_adapter
from decaf_node.errors import NotAllowed, TryAgain
from tests.cli.command import decaf_node


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder whose last saved round has an adapter, as the daemon leaves it."""
    saved = tmp_path / "state/export/round-7"
    saved.mkdir(parents=True)
    (saved / "adapter_config.json").write_text("{}")
    (saved / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / "state/export/adapter").symlink_to("round-7")
    return tmp_path / "state"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_it_copies_the_files_not_the_link(state: Path, tmp_path: Path) -> None:
    done = decaf_node("export", "out/adapter", "--state", state, "--runtime", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    target = tmp_path / "out/adapter"
    assert not target.is_symlink()
    assert (target / "adapter_model.safetensors").read_bytes() == b"weights"
    assert "out/adapter" in done.stdout
    assert names(tmp_path / "out") == {"adapter"}


def test_json_names_the_whole_path(state: Path, tmp_path: Path) -> None:
    done = decaf_node("export", "a", "--state", state, "--runtime", tmp_path, "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {"adapter": str(tmp_path / "a")}


def test_an_empty_folder_is_filled(state: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    copy_adapter(state / "export/adapter", tmp_path / "empty")
    assert names(tmp_path / "empty") == {"adapter_config.json", "adapter_model.safetensors"}


def test_a_folder_in_use_is_kept(state: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary").write_text("dear")
    done = decaf_node("export", tmp_path / "mine", "--state", state, "--runtime", tmp_path)
    assert done.returncode == 77
    assert "[export.not-empty]" in done.stderr
    assert names(tmp_path / "mine") == {"diary"}


def test_force_replaces_the_folder_as_a_whole(state: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary").write_text("dear")
    copy_adapter(state / "export/adapter", tmp_path / "mine", force=True)
    assert names(tmp_path / "mine") == {"adapter_config.json", "adapter_model.safetensors"}
    assert names(tmp_path) == {"mine", "state"}


def test_nothing_saved_yet_is_try_again(tmp_path: Path) -> None:
    with pytest.raises(TryAgain, match="first saved round"):
        copy_adapter(tmp_path / "state/export/adapter", tmp_path / "out")


def test_where_it_may_not_write_it_says_so(state: Path) -> None:
    with pytest.raises((NotAllowed, TryAgain), match="/proc/adapter"):
        copy_adapter(state / "export/adapter", Path("/proc/adapter"))
