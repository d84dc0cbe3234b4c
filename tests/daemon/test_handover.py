"""Saved rounds to and from a trainer of another user: copies, and plain files of its own folder alone."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from decaf_node.daemon.handover import Handover
from decaf_node.daemon.spool import Spool
from decaf_node.errors import BadData
from decaf_node.link import File, StateSaved
from decaf_node.snapshot import digest_of


@pytest.fixture
def handover(tmp_path: Path) -> Handover:
    return Handover(tmp_path / "run/handover", Spool(tmp_path / "run/spool", 10**6))


def written(folder: Path) -> StateSaved:
    """What a trainer writes, and says."""
    (folder / "adapter.safetensors").write_bytes(b"adapter")
    (folder / "trainer.safetensors").write_bytes(b"moments")
    (folder / "export/adapter_config.json").write_text("{}")
    return StateSaved(
        3, file(folder / "adapter.safetensors"), file(folder / "trainer.safetensors"), str(folder / "export")
    )


def file(path: Path) -> File:
    return File(str(path), digest_of(path), path.stat().st_size)


def test_a_saved_round_is_given_as_copies_that_it_can_read(handover: Handover, tmp_path: Path) -> None:
    for name in ("snapshot", "moments"):
        (tmp_path / name).write_bytes(name.encode())
        (tmp_path / name).chmod(0o600)
    given = handover.give(file(tmp_path / "snapshot"), file(tmp_path / "moments"))
    assert [Path(copy.path).read_bytes() for copy in given] == [b"snapshot", b"moments"]
    assert {stat.S_IMODE(Path(copy.path).stat().st_mode) for copy in given} == {0o644}
    assert Path(given[0].path).parent == tmp_path / "run/spool"
    folder = handover.staging(3)
    assert [place.name for place in (tmp_path / "run/handover").iterdir()] == [folder.name], "one at a time"


def test_what_it_has_written_is_copied_into_the_state(handover: Handover, tmp_path: Path) -> None:
    folder, state = handover.staging(3), tmp_path / "state"
    state.mkdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o770
    said = written(folder)
    taken = handover.take(said, state)
    assert (taken.snapshot, taken.trainer) == (file(state / "adapter.safetensors"), file(state / "trainer.safetensors"))
    assert (taken.snapshot.digest, taken.round) == (said.snapshot.digest, 3)
    assert taken.export == str(state / "export")
    assert (state / "export/adapter_config.json").read_text() == "{}"
    assert not folder.exists()


@pytest.mark.parametrize("place", ["adapter.safetensors", "export/adapter_config.json", "export"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_or_a_pipe_is_not_followed(kind: str, place: str, handover: Handover, tmp_path: Path) -> None:
    secret = tmp_path / "identity"
    secret.mkdir()
    (secret / "key.pem").write_text("secret")
    folder, state = handover.staging(3), tmp_path / "state"
    state.mkdir()
    said = written(folder)
    (folder / place).rename(tmp_path / "away")
    if kind == "pipe":
        os.mkfifo(folder / place)
    else:
        (folder / place).symlink_to(secret if place == "export" else secret / "key.pem")
    with pytest.raises(BadData) as caught:
        handover.take(said, state)
    assert caught.value.reason == "handover.no-file"
    assert not [found for found in state.rglob("*") if found.is_file() and found.read_text() == "secret"]


def test_paths_that_lead_elsewhere_do_not_count(handover: Handover, tmp_path: Path) -> None:
    folder, state = handover.staging(3), tmp_path / "state"
    state.mkdir()
    said = written(folder)
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity/key.pem").write_text("secret")
    taken = handover.take(replace(said, export=str(tmp_path / "identity")), state)
    assert [place.name for place in Path(taken.export).iterdir()] == ["adapter_config.json"]
    folder = handover.staging(4)
    key = replace(said.snapshot, path=str(tmp_path / "identity/key.pem"))
    with pytest.raises(BadData, match=r"has written no key\.pem"):
        handover.take(replace(written(folder), snapshot=key), tmp_path / "other")
