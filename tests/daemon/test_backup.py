"""The key of the mesh goes into a file and comes back elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from decaf_node.cli.main import main
from decaf_node.daemon.backup import backup, restore
from decaf_node.daemon.identity import load_identity
from decaf_node.daemon.papers import load_papers
from decaf_node.errors import DecafError
from tests.daemon.trusted import Authority

PHRASE = "correct horse battery"
LAB = Authority()


@pytest.fixture
def founder(tmp_path: Path) -> Path:
    LAB.found(tmp_path / "a")
    return tmp_path / "a" / "identity"


def reason(act: object, *arguments: object) -> str:
    assert callable(act)
    with pytest.raises(DecafError) as caught:
        act(*arguments)
    return caught.value.reason


def is_founder(folder: Path) -> bool:
    return load_papers(folder, load_identity(folder), time.time()).is_founder


def test_a_member_becomes_the_founder_from_a_backup(founder: Path, tmp_path: Path) -> None:
    LAB.admit(tmp_path / "b")
    member, file = tmp_path / "b" / "identity", tmp_path / "ca.pem"
    assert reason(backup, member, file, PHRASE) == "backup.not-founder"
    backup(founder, file, PHRASE)
    assert file.stat().st_mode & 0o77 == 0
    assert b"ENCRYPTED" in file.read_bytes()
    assert reason(backup, founder, file, PHRASE) == "backup.there"
    assert not is_founder(member)
    assert reason(restore, member, file, "another phrase") == "restore.wrong-passphrase"
    restore(member, file, PHRASE)
    assert is_founder(member)
    assert is_founder(founder)


def test_a_backup_is_for_members_of_its_mesh(founder: Path, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    backup(founder, file, PHRASE)
    Authority().admit(tmp_path / "c")
    assert reason(restore, tmp_path / "c" / "identity", file, PHRASE) == "restore.other-mesh"
    assert reason(restore, tmp_path / "d" / "identity", file, PHRASE) == "restore.other-mesh"
    file.write_bytes(file.read_bytes().split(b"-----BEGIN ENCRYPTED")[0])
    assert reason(restore, founder, file, PHRASE) in ("restore.damaged", "restore.wrong-passphrase")
    assert reason(backup, founder, tmp_path / "e.pem", "short") == "backup.short-passphrase"


def test_the_commands(founder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "phrase").write_text(f"{PHRASE}\n")
    options = ["--state", str(founder.parent), "--passphrase-file", str(tmp_path / "phrase")]
    assert main(["config", "backup-ca", str(tmp_path / "ca.pem"), *options]) == 0
    assert main(["config", "restore-ca", str(tmp_path / "ca.pem"), *options]) == 0
    assert main(["config", "backup-ca", str(tmp_path / "ca.pem"), *options]) == 77
    assert "[backup.there]" in capsys.readouterr().err
