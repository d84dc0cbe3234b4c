"""``decaf-node doctor``: what it prints, its exit codes, and the archive for support."""

from __future__ import annotations

import base64
import json
import tarfile
from pathlib import Path

import pytest

from decaf_node.daemon.store import open_store
from tests.cli.command import decaf_node
from tests.daemon.disks import small_disk
from tests.daemon.trusted import Authority
from tests.training.tiny import make_bert, write_rows

pytestmark = pytest.mark.slow

SECRET = "hunter2"


def test_without_anything_it_says_where_to_begin(tmp_path: Path) -> None:
    places = ("--config", tmp_path / "c.toml", "--state", tmp_path / "s", "--runtime", tmp_path / "r")
    done = decaf_node("doctor", *places)
    assert (done.returncode, done.stderr) == (78, "")
    assert done.stdout.splitlines()[0].split()[:2] == ["settings", "✗"]
    assert "→ decaf-node init" in done.stdout.splitlines()[1]
    assert done.stdout.splitlines()[-1].endswith("Begin with settings.missing.")
    document = json.loads(decaf_node("doctor", *places, "--json").stdout)
    assert (document["cause"], document["exit_code"]) == ("settings.missing", 78)
    assert [finding["layer"] for finding in document["findings"]][-2:] == ["network", "peers"]
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    places = ("--config", tmp_path / "c.toml", "--state", tmp_path / "s", "--runtime", tmp_path / "r")
    with small_disk(tmp_path / "small", 4) as disk:
        (disk / "ballast").write_bytes(bytes(4096))
        done = decaf_node("doctor", *places, "--bundle", disk / "b.tar.gz", "--json")
        assert done.returncode == 75
        document = json.loads(done.stdout)
        assert (document["error"]["reason"], document["cause"]) == ("disk.full", "settings.missing")
        assert (document["bundle"], document["exit_code"]) == ("", 75)
        done = decaf_node("doctor", *places, "--bundle", disk / "b.tar.gz")
        assert (done.returncode, "[disk.full]" in done.stderr) == (75, True)
        assert done.stdout.endswith("Begin with settings.missing.\n")
        assert [path.name for path in disk.iterdir()] == ["ballast"]


def test_a_bundle_holds_no_secret_and_no_data(tmp_path: Path) -> None:
    """Every file of the node holds a secret; the archive holds none of it."""
    state, bundle = tmp_path / "state", tmp_path / "out" / "support.tar.gz"
    Authority().found(state)
    open_store(state, "lab").close()
    for name in (
        "snapshots/x.safetensors",
        "trainer/x.state",
        "export/x",
        "members/seeds",
        "privacy.json",
        "identity/y",
    ):
        (state / name).parent.mkdir(exist_ok=True)
        (state / name).write_text(f"{SECRET}\n")
    keys = [line for key in ("key.pem", "ca-key.pem") for line in (state / "identity" / key).read_text().split()]
    for path in state.rglob("*"):
        if path.is_file() and path.suffix in (".pem", ""):
            path.write_bytes(path.read_bytes() + f"\n{SECRET}\n".encode())
    model = make_bert(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": f"the cat {SECRET}", "label": SECRET}] * 9)
    (tmp_path / "c.toml").write_text(
        f"""
        [discovery]
        mdns = false
        [model]
        path = "{model}"
        task = "sequence-classification"
        labels = ["sport", "tech"]
        [data]
        train = ["{rows}"]
        [training.arguments]
        hub_token = "{SECRET}"
        hub_model_id = "https://me:{SECRET}@hub/model"
        """
    )
    bundle.parent.mkdir()
    done = decaf_node(
        "doctor", "--config", tmp_path / "c.toml", "--state", state, "--runtime", tmp_path / "r", "--bundle", bundle
    )
    assert done.returncode == 65, done.stdout + done.stderr
    assert "[data.unknown-label]" in done.stdout
    with tarfile.open(bundle) as archive:
        parts = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert {"decaf-node-doctor/doctor.json", "decaf-node-doctor/settings.json", "decaf-node-doctor/versions.json"} <= {
        *parts
    }
    arguments = json.loads(parts["decaf-node-doctor/settings.json"])["training"]["arguments"]
    assert arguments == {"hub_token": "(taken out)", "hub_model_id": "https://(taken out)@hub/model"}
    secrets = [SECRET.encode(), base64.b64encode(SECRET.encode()), *(line.encode() for line in keys if len(line) > 40)]
    for name, content in parts.items():
        assert not [secret for secret in secrets if secret in content], name
    assert [path.name for path in bundle.parent.iterdir()] == ["support.tar.gz"]
    assert bundle.stat().st_mode & 0o777 == 0o600


def test_a_log_is_told_without_what_the_trainer_prints(tmp_path: Path) -> None:
    journal = tmp_path / "journalctl"
    journal.write_text(f"#!/bin/sh\necho 'INFO Round 3 is mixed.'\necho 'INFO trainer: {SECRET}'\n")
    journal.chmod(0o755)
    bundle = tmp_path / "b.tar.gz"
    places = ("--config", tmp_path / "c.toml", "--state", tmp_path / "s", "--runtime", tmp_path / "r")
    done = decaf_node("doctor", *places, "--bundle", bundle, PATH=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 78
    with tarfile.open(bundle) as archive:
        log = archive.extractfile("decaf-node-doctor/log.txt")
        assert log is not None
        assert log.read() == b"INFO Round 3 is mixed.\n"
