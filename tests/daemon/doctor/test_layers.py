"""What the doctor says of each layer, on real broken files; nothing is changed by its looking."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from decaf_node.daemon.doctor.clock import look_at_clock
from decaf_node.daemon.doctor.configured import look_at_settings
from decaf_node.daemon.doctor.disk import look_at_disks
from decaf_node.daemon.doctor.files import Kept, look_at_files, look_at_history
from decaf_node.daemon.doctor.finding import Finding, failure, first_failure, in_order, warning, well
from decaf_node.daemon.doctor.identity import look_at_identity
from decaf_node.daemon.doctor.remedies import REMEDIES, with_remedies
from decaf_node.daemon.doctor.running import Said, look_at_daemon
from decaf_node.daemon.store import DATABASE, open_store
from decaf_node.errors import BadSettings, DaemonUnreachable, TryAgain
from decaf_node.places import Places
from decaf_node.settings import SecuritySection, Settings
from tests.daemon.disks import small_disk
from tests.daemon.trusted import Authority

DAY = 86400.0
NOW = 1_800_000_000.0
NOBODY = 65534


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """The places of a member that has been set up, and never run."""
    Authority().admit(tmp_path / "state")
    (tmp_path / "run").mkdir(mode=0o700)
    return Places(tmp_path / "config.toml", tmp_path / "state", tmp_path / "run")


def bad(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.mark, finding.reason) for finding in findings if finding.mark in ("warning", "failure")]


def contents(folder: Path) -> dict[str, tuple[int, float]]:
    return {str(path): (path.stat().st_mode, path.stat().st_mtime) for path in (folder, *folder.rglob("*"))}


def written(places: Places, more: str = "") -> Places:
    places.config.write_text(f"[model]\npath = '/none'\n[data]\ntrain = ['/none']\n{more}")
    return places


# --- the order --------------------------------------------------------------------------------------------------------


def test_the_cause_is_the_failure_of_the_lowest_layer() -> None:
    low = failure("disk", "x", TryAgain("disk.full", "It is full."))
    high = failure("peers", "x", TryAgain("peer.silent", "It is silent."))
    findings = [high, warning("files", "x", "files.other-user", "It is another's."), low, well("settings", "x", "fine")]
    assert [finding.layer for finding in in_order(findings)] == ["settings", "files", "disk", "peers"]
    assert first_failure(findings) == low
    assert first_failure(findings[1:2]) is None


def test_every_remedy_is_one_that_can_be_typed(places: Places) -> None:
    for reason in REMEDIES:
        [told] = with_remedies([warning("peers", "b at [fd00::2]:7433", reason, "It is so.")], places)
        assert told.remedy
        assert "{" not in told.remedy
    places_of = {
        ("peers", "b at 10.0.0.2:7433", "peer.silent"): "on that device: sudo ufw allow 7433/tcp ",
        ("peers", "10.0.0.2:7433", "peer.no-route"): "ip route get 10.0.0.2 ",
        ("network", "eth0", "multicast.no-flag"): "sudo ip link set eth0 multicast on",
    }
    for (layer, subject, reason), wanted in places_of.items():
        [told] = with_remedies([warning(layer, subject, reason, "It is so.")], places)
        assert told.remedy.startswith(wanted)


def test_a_reason_without_a_remedy_of_its_own_has_that_of_its_kind(places: Places) -> None:
    [told] = with_remedies([failure("model", "x", BadSettings("lora.new", "It does not fit."))], places)
    assert "config check" in told.remedy


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("[round]\nstepps = 3\n", "settings.unknown-key"),
        ("[round]\nsteps = 'many'\n", "settings.bad-value"),
        ("[mesh]\npeers = ['nowhere']\n", "settings.bad-peer"),
        ("[monitor]\noperators = ['nobody']\n", "monitor.bad-operator"),
        ("[monitor]\nmetrics = '0.0.0.0:9'\n", "monitor.open-metrics"),
        ("[monitor]\notlp = 'nowhere'\n", "monitor.bad-otlp"),
        ("[security]\ninsecure = true\n[listen]\naddress = 'no name'\n", "listen.bad-address"),
        ("nonsense", "settings.not-toml"),
    ],
)
def test_settings(places: Places, more: str, reason: str) -> None:
    assert bad(look_at_settings(written(places, more), {})[1]) == [("failure", reason)]


def test_settings_that_are_fine(places: Places) -> None:
    settings, findings = look_at_settings(written(places), {})
    assert settings is not None
    assert [finding.mark for finding in findings] == ["well"]


def test_no_settings(places: Places) -> None:
    assert bad(look_at_settings(places, {})[1]) == [("failure", "settings.missing")]


# --- files ------------------------------------------------------------------------------------------------------------


def test_folders_that_are_fine(places: Places) -> None:
    assert [finding.mark for finding in look_at_files(places)] == ["well", "well"]


def test_folders_that_are_not_there_are_no_failure(tmp_path: Path) -> None:
    places = Places(tmp_path / "c", tmp_path / "s", tmp_path / "r")
    assert [finding.mark for finding in look_at_files(places)] == ["unseen", "unseen"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be(places: Places) -> None:
    shutil.rmtree(places.state)
    places.state.touch()
    assert bad(look_at_files(places)) == [("failure", "disk.not-a-folder")]


def test_a_runtime_folder_that_anyone_may_write_to(places: Places) -> None:
    places.runtime.chmod(0o777)
    assert bad(look_at_files(places)) == [("failure", "runtime.not-ours")]


@contextmanager
def as_nobody(*opened: Path) -> Iterator[None]:
    """Be another user for a while, who may go through these folders."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    for folder in opened:
        folder.chmod(0o755)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_the_files_of_another_user(places: Places) -> None:
    with as_nobody(*list(places.state.parents)[:-2]):
        findings = look_at_files(places)
        assert bad(findings) == [("failure", "files.other-user")] * 2
        told = with_remedies(findings, places)
    assert told[0].remedy.startswith("sudo -u root decaf-node doctor --config ")


def test_folders_that_cannot_even_be_seen(places: Places) -> None:
    with as_nobody():
        places = Places(places.config, places.state / "identity" / "x", places.state / "identity" / "y")
        findings = look_at_files(places)
        assert bad(findings) == [("failure", "files.other-user")] * 2
        assert with_remedies(findings, places)[0].remedy.startswith("sudo -u decaf-node decaf-node doctor ")


def test_root_is_told_whose_files_they_are(places: Places) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(places.state, NOBODY, NOBODY)
    assert bad(look_at_files(places)) == [("warning", "files.other-user")]


def test_a_history_is_read_and_left_alone(places: Places) -> None:
    store = open_store(places.state, "lab")
    store.check_identity("N" * 52)
    store.check_schema("a" * 64, {"base": "b" * 64})
    store.close()
    before = contents(places.state)
    kept, findings = look_at_history(places.state)
    assert (kept, bad(findings)) == (Kept("N" * 52, "a" * 64, "b" * 64), [])
    assert contents(places.state) == before


def test_a_history_that_is_damaged(places: Places) -> None:
    open_store(places.state, "lab").close()
    (places.state / DATABASE).write_bytes(b"this is no database" * 1000)
    assert bad(look_at_history(places.state)[1]) == [("failure", "state.damaged")]


def test_a_history_that_is_written_to_is_left_alone(places: Places) -> None:
    with closing(open_store(places.state, "lab")):
        kept, [finding] = look_at_history(places.state)
    assert (kept, finding.mark) == (Kept(), "unseen")
    assert f"process {os.getpid()} " in finding.message


def test_a_history_of_another_program(places: Places) -> None:
    with closing(sqlite3.connect(places.state / DATABASE)) as database:
        database.execute("CREATE TABLE other (x)")
    assert [finding.mark for finding in look_at_history(places.state)[1]] == ["unseen"]


# --- clock ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "stamp", "ahead", "expired_at", "wanted"),
    [
        (NOW, NOW - 5, [0.1, -0.2], "", []),
        (DAY, 0.0, [], "", [("failure", "clock.not-set")]),
        (NOW, NOW + 3600, [], "", [("failure", "clock.behind")]),
        (NOW, NOW + 200, [0.0], "", []),
        (NOW, 0.0, [], "10.0.0.1:7433", [("failure", "clock.ahead")]),
        (NOW, 0.0, [90.0, 80.0], "10.0.0.1:7433", [("failure", "clock.ahead")]),
        (NOW, 0.0, [0.1], "10.0.0.1:7433", []),
        (NOW, 0.0, [90.0, 80.0, 0.0], "", [("warning", "clock.differs")]),
        (NOW, 0.0, [0.0, 5e5, 0.0], "", []),
        (NOW, 0.0, [-2 * DAY], "", [("failure", "clock.differs")]),
    ],
)
def test_clock(now: float, stamp: float, ahead: list[float], expired_at: str, wanted: list[tuple[str, str]]) -> None:
    assert bad(look_at_clock(now, stamp, ahead, expired_at)) == wanted


# --- identity ---------------------------------------------------------------------------------------------------------


def identity(places: Places, section: SecuritySection | None = None, claimed: str = "", runs: bool = False) -> object:
    _, findings = look_at_identity(places.state / "identity", section or SecuritySection(), time.time(), claimed, runs)
    return bad(findings)


def test_an_identity_that_is_fine_is_left_alone(places: Places) -> None:
    before = contents(places.state)
    assert identity(places) == []
    assert contents(places.state) == before


def test_no_identity_and_none_is_made(places: Places) -> None:
    shutil.rmtree(places.state)
    assert identity(places) == [("failure", "security.no-certificate")]
    assert not places.state.exists()


def test_an_identity_without_a_certificate(places: Places) -> None:
    (places.state / "identity" / "certificate.pem").unlink()
    assert identity(places) == [("failure", "security.no-certificate")]
    assert identity(places, runs=True) == [("warning", "security.insecure")]
    assert identity(places, SecuritySection(insecure=True)) == [("warning", "security.insecure")]


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("key.pem", b"nonsense", "identity.damaged"),
        ("certificate.pem", b"nonsense", "certificate.damaged"),
        ("revocations", b"nonsense", "revocations.damaged-file"),
    ],
)
def test_damaged_files(places: Places, file: str, content: bytes, reason: str) -> None:
    path = places.state / "identity" / file
    path.write_bytes(content)
    path.chmod(0o600)
    assert identity(places) == [("failure", reason)]


def test_a_key_of_another_node(places: Places) -> None:
    assert identity(places, claimed="N" * 52) == [("failure", "state.other-identity")]


def test_papers_of_two_meshes(places: Places, tmp_path: Path) -> None:
    Authority().admit(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "identity" / "ca.pem", places.state / "identity" / "ca.pem")
    assert identity(places) == [("failure", "certificate.other-mesh")]


@pytest.mark.parametrize(
    ("began", "lifetime", "wanted"),
    [
        (0.0, 30 * DAY, []),
        (-29 * DAY, 30 * DAY, [("warning", "certificate.expires-soon")]),
        (-31 * DAY, 30 * DAY, [("failure", "certificate.expired")]),
        (3 * DAY, 30 * DAY, [("failure", "certificate.not-yet-valid")]),
    ],
)
def test_dates(tmp_path: Path, began: float, lifetime: float, wanted: list[tuple[str, str]]) -> None:
    Authority().admit(tmp_path / "state", lifetime, time.time() + began)
    assert identity(Places(tmp_path, tmp_path / "state", tmp_path)) == wanted


# --- disk -------------------------------------------------------------------------------------------------------------


def test_a_disk_with_room(places: Places) -> None:
    assert bad(look_at_disks(places)) == []


def test_a_small_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 4096) as disk:
        findings = look_at_disks(Places(tmp_path, disk / "state", tmp_path / "run"))
    assert bad(findings) == [("failure", "disk.full")]


def test_a_disk_with_room_for_few_rounds(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 48 * 1024) as disk:
        (disk / "snapshots").mkdir()
        (disk / "snapshots" / "x").write_bytes(bytes(8 * 1024 * 1024))
        findings = look_at_disks(Places(tmp_path, disk, tmp_path / "run"))
    assert bad(findings) == [("warning", "disk.nearly-full")]


# --- the daemon -------------------------------------------------------------------------------------------------------

SILENT = Said(why=DaemonUnreachable("daemon.not-running", "No daemon answers."))


def listening(**sections: object) -> Settings:
    return Settings.model_validate(
        {"model": {"path": "/none"}, "data": {"train": ["/none"]}, "listen": {"port": 0}, **sections}
    )


def test_no_daemon(places: Places) -> None:
    assert bad(look_at_daemon(SILENT, places, listening())) == [("failure", "daemon.not-running")]


def test_ports_that_are_taken(places: Places) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        at = f"127.0.0.1:{port}"
        monitor = {"listen": at, "metrics": at, "dashboard": True, "dashboard_port": port}
        findings = look_at_daemon(SILENT, places, listening(monitor=monitor))
    assert bad(findings) == [("failure", "monitor.port-in-use")] * 3
    assert [finding.subject for finding in findings] == ["monitor.listen", "monitor.metrics", "monitor.dashboard_port"]


def test_a_daemon_that_answers_elsewhere(places: Places) -> None:
    with closing(open_store(places.state, "lab")):
        findings = look_at_daemon(SILENT, places, listening())
    assert bad(findings) == [("failure", "daemon.elsewhere")]
    assert f"Process {os.getpid()} holds" in findings[0].message


def test_an_address_of_another_machine(places: Places) -> None:
    findings = look_at_daemon(SILENT, places, listening(listen={"address": "192.0.2.1"}))
    assert bad(findings) == [("failure", "listen.bad-address")]
