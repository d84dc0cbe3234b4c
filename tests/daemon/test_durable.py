"""Folders in which others could put what they like, and sockets that they could open."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from decaf_node.daemon.durable import make_folder, private_sockets, refuse_shared
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


@pytest.mark.parametrize(
    ("folder", "wanted"),
    [(0o700, 0o600), (0o750, 0o660), (0o770, 0o660), (0o755, 0o600), (0o711, 0o600), (0o740, 0o600)],
)
def test_a_socket_is_for_the_group_of_a_folder_that_is_for_the_group(
    tmp_path: Path, folder: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(folder)
    assert socket_mode(tmp_path / "own") == 0o600, "the folder is not systemd's"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    assert socket_mode(tmp_path / "s") == wanted


def socket_mode(place: Path) -> int:
    before = os.umask(0o022)
    try:
        with socket.socket(socket.AF_UNIX) as listener, private_sockets(place.parent):
            listener.bind(str(place))
        assert os.umask(0o022) == 0o022, "it is as it was"
    finally:
        os.umask(before)
    return stat.S_IMODE(place.stat().st_mode)
