from __future__ import annotations

import base64
import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from decaf_node.daemon.identity import load_identity, private_file
from decaf_node.daemon.node_id import short
from decaf_node.errors import BadSettings, DecafError, NotAllowed

LOAD = "import sys, pathlib; from decaf_node.daemon.identity import load_identity as l; "
PRINT = LOAD + "print(l(pathlib.Path(sys.argv[1])).node)"


def refused(folder: Path) -> DecafError:
    with pytest.raises(DecafError) as caught:
        load_identity(folder)
    return caught.value


def pem_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_the_first_start_makes_a_private_key_and_the_next_one_finds_it(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "identity"
    first = load_identity(folder)
    assert load_identity(folder) == first
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["key.pem"]
    assert b"PRIVATE KEY" in first.private_key_pem
    assert "PRIVATE" not in repr(first)


def test_the_node_id_is_the_hash_of_the_public_key(tmp_path: Path) -> None:
    identity = load_identity(tmp_path / "identity")
    private = serialization.load_pem_private_key(identity.private_key_pem, None)
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert len(identity.node) == 52
    assert base64.b32decode(identity.node + "====") == hashlib.sha256(public).digest()
    assert short(identity.node) == f"{identity.node[:4]}-{identity.node[4:8]}"


def test_two_nodes_differ(tmp_path: Path) -> None:
    assert load_identity(tmp_path / "a").node != load_identity(tmp_path / "b").node


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a key",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"\xff\xfe" * 40_000,
        pem_of(ec.generate_private_key(ec.SECP384R1())),
        pem_of(rsa.generate_private_key(65537, 2048)),
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        ),
    ],
    ids=["empty", "text", "no-key-in-pem", "binary", "p384", "rsa", "encrypted"],
)
def test_a_damaged_key_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    load_identity(tmp_path / "identity")
    key = tmp_path / "identity" / "key.pem"
    key.write_bytes(content)
    error = refused(tmp_path / "identity")
    assert isinstance(error, BadSettings)
    assert error.reason == "identity.damaged"
    assert str(key) in error.message
    assert key.read_bytes() == content


def test_a_truncated_key_is_refused(tmp_path: Path) -> None:
    pem = load_identity(tmp_path).private_key_pem
    for length in range(1, len(pem) - 1, 7):
        (tmp_path / "key.pem").write_bytes(pem[:length])
        assert refused(tmp_path).reason == "identity.damaged"


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load_identity(tmp_path / "identity")
    key = tmp_path / "identity" / "key.pem"
    for mode in (0o640, 0o604, 0o666):
        key.chmod(mode)
        error = refused(tmp_path / "identity")
        assert isinstance(error, NotAllowed)
        assert error.reason == "identity.too-open"
        assert f"chmod 600 {key}" in error.message
        assert stat.S_IMODE(key.stat().st_mode) == mode
    key.chmod(0o400)
    load_identity(tmp_path / "identity")


def test_a_key_that_systemd_has_given_us_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its access control list lets in nobody else, and shows in the mode as that of a group."""
    pem = load_identity(tmp_path / "identity").private_key_pem
    given = tmp_path / "credentials" / "key.pem"
    given.parent.mkdir()
    given.write_bytes(pem)
    given.chmod(0o440)
    with pytest.raises(NotAllowed):
        private_file(given)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(given.parent))
    assert private_file(given) == pem


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    load_identity(tmp_path / "identity")
    (tmp_path / "identity").chmod(0o770)
    assert refused(tmp_path / "identity").reason == "identity.too-open"


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "identity" / "key.pem").mkdir(parents=True, mode=0o700)
    (tmp_path / "identity").chmod(0o700)
    assert refused(tmp_path / "identity").reason == "identity.damaged"


def test_a_link_into_nothing_is_not_replaced_by_a_new_key(tmp_path: Path) -> None:
    (tmp_path / "key.pem").symlink_to(tmp_path / "unmounted" / "key.pem")
    assert refused(tmp_path).reason == "disk.failed"
    assert (tmp_path / "key.pem").is_symlink()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("")
    assert refused(tmp_path / "identity").reason == "disk.not-a-folder"
    assert refused(tmp_path / "identity" / "below").reason == "disk.not-a-folder"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_unreadable_key_is_refused_in_one_sentence(tmp_path: Path) -> None:
    load_identity(tmp_path / "identity")
    program = LOAD + (
        "import os; from decaf_node.errors import DecafError; os.chdir(sys.argv[1]); os.seteuid(65534)\n"
        "try: l(pathlib.Path('identity'))\n"
        "except DecafError as error: print(error.reason, error.exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["disk.forbidden", "77"]


def test_what_a_crash_left_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".key.pem.tmp").write_bytes(b"half a k")
    identity = load_identity(tmp_path)
    assert load_identity(tmp_path) == identity
    assert [path.name for path in tmp_path.iterdir()] == ["key.pem"]


def test_two_processes_that_start_at_once_are_one_node(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PRINT, str(tmp_path / "identity")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    nodes = {process.communicate()[0] for process in started}
    assert nodes == {load_identity(tmp_path / "identity").node + "\n"}
