"""The key of the mesh goes into a file and comes back elsewhere."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from decaf_node.cli.main import main
from decaf_node.daemon.backup import backup, restore
from decaf_node.daemon.identity import load_identity
from decaf_node.daemon.papers import AUTHORITY_KEY, load_papers
from decaf_node.errors import DecafError
from tests.daemon.trusted import Authority

PHRASE = "correct horse battery"
LAB = Authority()

pytestmark = pytest.mark.slow


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
    member, file = tmp_path / "b" / "identity", tmp_path / "ca.backup"
    assert reason(backup, member, file, PHRASE) == "backup.not-founder"
    backup(founder, file, PHRASE)
    assert file.stat().st_mode & 0o77 == 0
    assert reason(backup, founder, file, PHRASE) == "backup.there"
    assert not is_founder(member)
    assert reason(restore, member, file, "another phrase") == "restore.wrong-passphrase"
    restore(member, file, PHRASE)
    assert is_founder(member)
    assert is_founder(founder)


def test_a_backup_is_for_members_of_its_mesh(founder: Path, tmp_path: Path) -> None:
    file = tmp_path / "ca.backup"
    backup(founder, file, PHRASE)
    Authority().admit(tmp_path / "c")
    assert reason(restore, tmp_path / "c" / "identity", file, PHRASE) == "restore.other-mesh"
    assert reason(restore, tmp_path / "d" / "identity", file, PHRASE) == "restore.other-mesh"
    assert reason(backup, founder, tmp_path / "e.backup", "short") == "backup.short-passphrase"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda file: b"", "restore.damaged"),
        (lambda file: b"-----BEGIN CERTIFICATE-----", "restore.damaged"),
        (lambda file: file.replace(b"backup 1", b"backup 2"), "restore.damaged"),
        (lambda file: file[:-20], "restore.wrong-passphrase"),
        (lambda file: file.replace(b"\n", b"\n!", 1), "restore.wrong-passphrase"),
        (lambda file: file[:-9] + bytes([file[-9] ^ 1]) + file[-8:], "restore.wrong-passphrase"),
    ],
)
def test_what_is_no_backup_changes_nothing(
    founder: Path, tmp_path: Path, damage: Callable[[bytes], bytes], expected: str
) -> None:
    file, key = tmp_path / "ca.backup", (founder / AUTHORITY_KEY).read_bytes()
    backup(founder, file, PHRASE)
    file.write_bytes(damage(file.read_bytes()))
    assert reason(restore, founder, file, PHRASE) == expected
    assert (founder / AUTHORITY_KEY).read_bytes() == key


def test_neither_the_key_nor_the_phrase_can_be_read_from_it(founder: Path, tmp_path: Path) -> None:
    backup(founder, tmp_path / "1", PHRASE)
    backup(founder, tmp_path / "2", PHRASE)
    one, other = [(tmp_path / name).read_bytes().splitlines() for name in "12"]
    assert one[0] == other[0] == b"decaf-node backup 1"
    assert one[1] != other[1], "each backup has a salt of its own"
    scrypt = Scrypt(base64.b64decode(one[1]), length=32, n=2**17, r=8, p=1)
    plain = Fernet(base64.urlsafe_b64encode(scrypt.derive(PHRASE.encode()))).decrypt(one[2])
    assert plain == (founder / "ca.pem").read_bytes() + (founder / AUTHORITY_KEY).read_bytes()


def test_the_commands(founder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "phrase").write_text(f"{PHRASE}\n")
    options = ["--state", str(founder.parent), "--passphrase-file", str(tmp_path / "phrase")]
    assert main(["config", "backup-ca", str(tmp_path / "ca.backup"), *options]) == 0
    assert main(["config", "restore-ca", str(tmp_path / "ca.backup"), *options]) == 0
    assert main(["config", "backup-ca", str(tmp_path / "ca.backup"), *options]) == 77
    assert "[backup.there]" in capsys.readouterr().err
