from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from decaf_node.daemon.database import FOREVER, FORGET_LOST, PAGE, TRIM
from decaf_node.daemon.reports import EdgeReport, RoundReport
from decaf_node.daemon.store import Store, open_store
from decaf_node.errors import BadData, BadSettings, DecafError, NotAllowed, TryAgain
from decaf_node.mesh.events import Edge, Receipt
from decaf_node.settings import StoreSection
from tests.daemon.saving import RANK, exported_round, files, save, snapshot_bytes, stage, write_file

EDGE = Edge("PEER", "a" * 64, "b" * 64, 0.25)
THEIRS = Receipt("b" * 64, "a" * 64, 0.2)
REPORT = RoundReport(
    round=1,
    time=1.0,
    steps=3,
    loss=0.5,
    train_seconds=1.0,
    exchange_seconds=0.1,
    mix_seconds=0.01,
    edges=(EdgeReport("PEER", 0.25, 1.5, 0.75),),
    tail=0.0,
    interference=0.1,
    norm=2.0,
    consensus_distance=1.5,
    sent_bytes=10,
    received_bytes=20,
    evaluation_loss=None,
    evaluation_accuracy=0.75,
    saved=False,
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state"


@pytest.fixture
def store(state: Path) -> Iterator[Store]:
    with contextlib.closing(open_store(state, "home")) as store:
        yield store


def refused(state: Path, mesh: str = "home") -> DecafError:
    with pytest.raises(DecafError) as caught:
        open_store(state, mesh).close()
    return caught.value


def reopened(store: Store, settings: StoreSection | None = None) -> contextlib.closing[Store]:
    store.close()
    return contextlib.closing(open_store(store.folder, "home", settings))


# --- opening ------------------------------------------------------------------------------------------------------


def test_a_new_folder_is_private_and_has_its_layout(store: Store, state: Path) -> None:
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    found = {path.name for path in state.iterdir()} - {"rounds.sqlite-wal"}
    assert found == {"identity", "snapshots", "trainer", "export", "staging", "rounds.sqlite", "lock"}
    assert store.saved() is None
    assert store.unsaved() == ()
    assert store.rounds() == []


def test_a_second_daemon_is_told_who_has_the_folder(store: Store, state: Path) -> None:
    error = refused(state)
    assert isinstance(error, TryAgain)
    assert error.reason == "state.locked"
    assert f"PID {os.getpid()}" in error.message
    save(store, 1)
    assert store.saved() is not None


def test_another_process_is_refused_until_the_holder_is_killed(state: Path) -> None:
    program = (
        "import pathlib, sys, time; from decaf_node.daemon.store import open_store;"
        "held = open_store(pathlib.Path(sys.argv[1]), 'home'); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(state)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        assert f"PID {holder.pid}" in refused(state).message
        holder.send_signal(signal.SIGKILL)
    open_store(state, "home").close()


def test_a_folder_of_another_mesh_is_refused_and_left_alone(store: Store, state: Path) -> None:
    save(store, 1)
    store.close()
    before = files(state)
    error = refused(state, "office")
    assert isinstance(error, BadSettings)
    assert error.reason == "state.other-mesh"
    assert "'home'" in error.message
    assert "'office'" in error.message
    assert files(state) == before
    with contextlib.closing(open_store(state, "home")) as again:
        assert again.saved() is not None


def test_a_folder_whose_key_was_exchanged_is_refused(store: Store) -> None:
    store.check_identity("A" * 52)
    store.check_identity("A" * 52)
    with pytest.raises(BadSettings, match=r"AAAAAAAA.*BBBBBBBB") as caught:
        store.check_identity("B" * 52)
    assert caught.value.reason == "state.other-identity"


def test_a_folder_from_the_future_is_refused(store: Store, state: Path) -> None:
    store.close()
    with contextlib.closing(sqlite3.connect(state / "rounds.sqlite")) as database:
        database.execute("PRAGMA user_version = 99")
    error = refused(state)
    assert isinstance(error, BadSettings)
    assert error.reason == "state.from-the-future"


@pytest.mark.parametrize("content", [b"not a database, not at all" * 100, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_database_that_is_none_is_said_to_be_damaged(store: Store, state: Path, content: bytes) -> None:
    save(store, 1)
    store.close()
    (state / "rounds.sqlite").write_bytes(content)
    error = refused(state)
    assert isinstance(error, BadData)
    assert error.reason == "state.damaged"
    assert (state / "rounds.sqlite").read_bytes() == content
    assert len(list((state / "snapshots").iterdir())) == 1


def test_a_missing_database_does_not_cost_the_snapshots(store: Store, state: Path) -> None:
    save(store, 1)
    store.close()
    (state / "rounds.sqlite").unlink()
    assert refused(state).reason == "state.damaged"
    assert len(list((state / "snapshots").iterdir())) == 1
    assert not (state / "rounds.sqlite").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    error = refused(tmp_path / "state")
    assert isinstance(error, NotAllowed)
    assert error.reason == "disk.not-a-folder"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_folder_of_another_user_is_refused_in_one_sentence(store: Store, state: Path) -> None:
    store.close()
    program = (
        "import os, pathlib, sys; from decaf_node.daemon.store import open_store;"
        "from decaf_node.errors import DecafError; os.chdir(sys.argv[1]); os.seteuid(65534)\n"
        "try: open_store(pathlib.Path('.'), 'home')\n"
        "except DecafError as error: print(error.reason, error.exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", program, state], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["disk.forbidden", "77"]


def test_an_error_at_opening_leaves_the_folder_free(store: Store, state: Path) -> None:
    store.close()
    refused(state, "office")
    open_store(state, "home").close()


# --- schema -------------------------------------------------------------------------------------------------------

PARTS = {"base_model": "5f1c", "target_modules": ["q", "v"], "task": "causal-lm", "labels": []}


def test_the_schema_is_kept_at_its_first_use(store: Store) -> None:
    store.check_schema("s" * 64, PARTS)
    store.check_schema("s" * 64, PARTS)
    save(store, 1)
    with reopened(store) as again:
        again.check_schema("s" * 64, PARTS)
        saved = again.saved()
        assert saved is not None
        assert saved.schema == "s" * 64


def test_another_schema_is_refused_by_the_parts_that_differ(store: Store) -> None:
    store.check_schema("s" * 64, PARTS)
    with pytest.raises(BadSettings) as error:
        store.check_schema("t" * 64, {**PARTS, "target_modules": ["q"], "base_model": "9" * 64, "seed": 1})
    assert error.value.reason == "state.other-schema"
    assert 'base model ("5f1c" before, "999' in error.value.message
    assert 'target modules (["q", "v"] before, ["q"] now)' in error.value.message
    assert "seed (nothing before, 1 now)" in error.value.message
    assert "task" not in error.value.message
    store.check_schema("s" * 64, PARTS)


# --- saving -------------------------------------------------------------------------------------------------------


def test_a_saved_round_is_there_after_a_restart(store: Store, state: Path) -> None:
    before = time.time()
    save(store, 7)
    with reopened(store) as again:
        saved = again.saved()
    assert saved is not None
    assert (saved.round, saved.mixes, saved.rank, saved.details) == (7, 6, RANK, {"steps": 7})
    assert before <= saved.time <= time.time()
    assert Path(saved.snapshot.path).read_bytes() == snapshot_bytes(7)
    assert Path(saved.trainer.path).read_bytes() == b"optimizer after 7" * 4
    assert exported_round(state) == 7
    assert store.adapter_folder == state / "export" / "adapter"


def test_only_the_last_saved_rounds_are_kept(store: Store, state: Path) -> None:
    for round in range(1, 6):
        save(store, round)
        assert exported_round(state) == round
    assert [name.partition("/")[0] for name in files(state)] == ["export"] * 3 + ["snapshots"] * 2 + ["trainer"] * 2
    with reopened(store, StoreSection(keep=1)) as again:
        save(again, 6)
        saved = again.saved()
        assert saved is not None
        assert saved.round == 6
        assert len(files(state)) == 4


def test_the_same_adapter_can_be_saved_twice(store: Store, state: Path) -> None:
    save(store, 1)
    save(store, 1)
    save(store, 1)
    saved = store.saved()
    assert saved is not None
    assert saved.round == 1
    assert exported_round(state) == 1


def test_staging_begins_anew_and_a_restart_clears_it(store: Store, state: Path) -> None:
    first = store.staging(1)
    (first / "half").write_bytes(b"x")
    second = store.staging(2)
    assert [path.name for path in (state / "staging").iterdir()] == [second.name]
    assert list(second.iterdir()) == []
    with reopened(store):
        assert files(state) == []


@pytest.mark.parametrize("which", ["snapshot", "trainer"])
def test_files_that_are_not_what_they_are_said_to_be_are_not_saved(store: Store, state: Path, which: str) -> None:
    save(store, 1)
    before = files(state)
    snapshot, trainer, export = stage(store, 2)
    Path((snapshot if which == "snapshot" else trainer).path).write_bytes(b"other")
    with pytest.raises(BadData) as error:
        store.commit_round(2, 1, snapshot, trainer, export, {}, ())
    assert error.value.reason == "state.digest-differs"
    assert files(state) == before
    assert exported_round(state) == 1


def test_a_snapshot_that_is_none_is_not_saved(store: Store) -> None:
    _, trainer, export = stage(store, 2)
    snapshot = write_file(export.parent / "snapshot", b"no snapshot")
    with pytest.raises(BadData) as error:
        store.commit_round(2, 1, snapshot, trainer, export, {}, ())
    assert error.value.reason == "snapshot.damaged"
    assert store.saved() is None


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "empty"])
@pytest.mark.parametrize("folder", ["snapshots", "trainer"])
def test_a_damaged_round_gives_way_to_the_one_before(
    store: Store, state: Path, folder: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(store, 1)
    older = set((state / folder).iterdir())
    save(store, 2)
    (newest,) = set((state / folder).iterdir()) - older
    spoil(newest, damage)
    saved = store.saved()
    assert saved is not None
    assert saved.round == 1
    assert "saved round 2" in caplog.text
    save(store, 2)
    saved = store.saved()
    assert saved is not None
    assert saved.round == 2


def spoil(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    match damage:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(content[:-1])
        case "empty":
            path.write_bytes(b"")
        case "flipped":
            content[-1] ^= 1
            path.write_bytes(content)


def test_a_state_without_any_whole_round_is_said_to_be_damaged(store: Store, state: Path) -> None:
    save(store, 1)
    save(store, 2)
    for path in (state / "snapshots").iterdir():
        path.write_bytes(b"")
    with pytest.raises(BadData) as error:
        store.saved()
    assert error.value.reason == "state.damaged"
    assert str(state) in error.value.message


def test_a_missing_export_link_comes_back_at_the_next_start(store: Store, state: Path) -> None:
    save(store, 1)
    save(store, 2)
    store.adapter_folder.unlink()
    with reopened(store):
        assert exported_round(state) == 2


# --- receipts -----------------------------------------------------------------------------------------------------


def test_an_edge_counts_when_both_receipts_are_there(store: Store) -> None:
    store.save_receipt(EDGE, 3)
    assert store.unsaved() == ()
    assert store.promised() == (EDGE,)
    store.complete_receipt("PEER", THEIRS)
    assert store.promised() == ()
    assert store.unsaved() == (replace(EDGE, weight=0.2),)
    with reopened(store) as again:
        assert again.unsaved() == (replace(EDGE, weight=0.2),)


def test_the_peers_receipt_may_come_first(store: Store) -> None:
    store.complete_receipt("PEER", replace(THEIRS, weight=0.5))
    assert store.unsaved() == ()
    store.save_receipt(EDGE, 3)
    assert store.unsaved() == (EDGE,), "the smaller weight counts"


@pytest.mark.parametrize(
    ("peer", "receipt"),
    [
        ("OTHER", THEIRS),
        ("PEER", replace(THEIRS, own="c" * 64)),
        ("PEER", replace(THEIRS, theirs="c" * 64)),
        ("PEER", Receipt(EDGE.own, EDGE.theirs, 0.2)),
    ],
    ids=["other-peer", "other-own", "other-theirs", "not-swapped"],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_receipt_that_answers_none_of_ours_counts_for_nothing(
    store: Store, peer: str, receipt: Receipt, first: bool
) -> None:
    if first:
        store.complete_receipt(peer, receipt)
    store.save_receipt(EDGE, 3)
    store.complete_receipt(peer, receipt)
    assert store.unsaved() == ()


def test_a_save_drops_the_receipts_of_what_was_mixed_and_no_others(store: Store) -> None:
    late = Edge("LATE", "a" * 64, "c" * 64, 0.25)
    for edge in (EDGE, late):
        store.save_receipt(edge, 3)
        store.complete_receipt(edge.peer, Receipt(edge.theirs, edge.own, edge.weight))
    save(store, 3, mixed=(EDGE,))
    assert store.unsaved() == (late,)
    save(store, 4, mixed=(late, EDGE))
    assert store.unsaved() == ()


def test_a_failed_save_keeps_the_receipts(store: Store) -> None:
    store.save_receipt(EDGE, 3)
    store.complete_receipt("PEER", THEIRS)
    snapshot, trainer, export = stage(store, 3)
    Path(trainer.path).unlink()
    with pytest.raises(BadData):
        store.commit_round(3, 1, snapshot, trainer, export, {}, (EDGE,))
    assert len(store.unsaved()) == 1


def test_a_receipt_that_was_never_answered_is_forgotten_in_the_end(store: Store, state: Path) -> None:
    store.save_receipt(EDGE, 3)
    save(store, 10)
    store.complete_receipt("PEER", THEIRS)
    assert len(store.unsaved()) == 1, "late, but it counts"
    save(store, 259)
    assert store.unsaved() == ()


# --- history ------------------------------------------------------------------------------------------------------


def test_history_is_newest_first_and_paged(store: Store) -> None:
    for round in range(1, 8):
        store.record_round(replace(REPORT, round=round))
    assert [report.round for report in store.rounds()] == [7, 6, 5, 4, 3, 2, 1]
    assert [report.round for report in store.rounds(before=6, limit=2)] == [5, 4]
    assert store.rounds(before=1) == []


def test_a_round_is_recorded_as_it_was_last_told(store: Store) -> None:
    store.record_round(REPORT)
    later = replace(REPORT, evaluation_loss=float("inf"), edges=())
    store.record_round(later)
    assert store.rounds() == [later]


def test_a_save_marks_the_rounds_that_it_holds(store: Store) -> None:
    for round in (1, 2, 3):
        store.record_round(replace(REPORT, round=round))
    save(store, 2)
    store.record_round(replace(REPORT, round=2, evaluation_loss=0.5))
    assert [(report.round, report.saved) for report in store.rounds()] == [(3, False), (2, True), (1, True)]
    store.mark_saved(3)
    assert all(report.saved for report in store.rounds())


def test_a_round_that_a_crash_has_undone_leaves_the_history(store: Store) -> None:
    for round in (1, 2, 3):
        store.record_round(replace(REPORT, round=round))
    save(store, 2)
    with reopened(store) as again:
        assert [report.round for report in again.rounds()] == [2, 1]


def test_history_is_capped(store: Store) -> None:
    with reopened(store, StoreSection(history=10)) as again:
        for round in range(1, 31):
            again.record_round(replace(REPORT, round=round))
            again.record_round(replace(REPORT, round=round, loss=0.1))
        assert [report.round for report in again.rounds()] == list(range(30, 20, -1))


def test_a_round_that_an_older_version_has_recorded_has_no_clip_factors(store: Store, state: Path) -> None:
    store.record_round(REPORT)
    store.mark_saved(REPORT.round)
    store.close()
    with contextlib.closing(sqlite3.connect(state / "rounds.sqlite")) as database:
        database.execute("UPDATE rounds SET report = json_remove(report, '$.edges[0].clip_factor')")
        database.execute("PRAGMA user_version = 2")
        database.commit()
    with contextlib.closing(open_store(state, "home")) as again:
        (old,) = again.rounds()
        assert old.edges == (replace(REPORT.edges[0], clip_factor=None),)
        again.record_round(replace(REPORT, round=REPORT.round + 1))
        assert again.rounds()[0].edges[0].clip_factor == 0.75


def fill_history(state: Path, rows: int) -> None:
    begin, end = json.dumps(asdict(REPORT)).split(f'"round": {REPORT.round},')
    reports = ((round, f'{begin}"round": {round},{end}') for round in range(rows))
    with contextlib.closing(sqlite3.connect(state / "rounds.sqlite")) as database:
        database.executemany("INSERT INTO rounds (round, saved, report) VALUES (?, 1, ?)", reports)
        database.commit()


def steps_of(state: Path, statement: str, *values: int) -> int:
    """Return how many steps SQLite's machine takes for a statement."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    with contextlib.closing(sqlite3.connect(state / "rounds.sqlite")) as database:
        database.set_progress_handler(count, 1)
        database.execute(statement, values).fetchall()
    return steps


def plan_of(state: Path, statement: str, *values: int) -> str:
    with contextlib.closing(sqlite3.connect(state / "rounds.sqlite")) as database:
        return "; ".join(row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", values))


@pytest.mark.slow
def test_a_page_of_a_million_rows_costs_what_a_page_of_a_few_costs(store: Store, state: Path) -> None:
    store.close()
    costs = []
    for rows in (1_000, 1_000_000):
        (state / "rounds.sqlite").unlink()
        open_store(state, "home").close()
        fill_history(state, rows)
        assert plan_of(state, PAGE, rows // 2, 100).startswith("SEARCH rounds USING INDEX")
        costs.append(
            [
                *(steps_of(state, PAGE, before, 100) for before in (FOREVER, rows // 2)),
                *(steps_of(state, TRIM, rows), steps_of(state, FORGET_LOST)),
            ]
        )
        with contextlib.closing(open_store(state, "home", StoreSection(history=rows))) as again:
            again.record_round(replace(REPORT, round=rows))
            assert [row.round for row in again.rounds(limit=1000)] == list(range(rows, rows - 1000, -1))
            assert [row.round for row in again.rounds(before=rows // 2, limit=2)] == [rows // 2 - 1, rows // 2 - 2]
    assert costs[0] == costs[1]


def test_the_log_of_the_database_is_bounded(store: Store, state: Path) -> None:
    big = replace(REPORT, edges=(EdgeReport("P" * 20_000, 0.1, 0.1),))
    largest = 0
    for round in range(500):
        store.record_round(replace(big, round=round))
        largest = max(largest, (state / "rounds.sqlite-wal").stat().st_size)
    assert largest < 6 * 1024 * 1024
    assert (state / "rounds.sqlite").stat().st_size > 8 * 1024 * 1024
    assert not (state / "rounds.sqlite-shm").exists()


def test_any_thread_may_call(store: Store) -> None:
    def work(first: int) -> None:
        for round in range(first, first + 20):
            store.record_round(replace(REPORT, round=round))
            store.save_receipt(replace(EDGE, peer=str(round)), round)
            store.complete_receipt(str(round), THEIRS)

    threads = [threading.Thread(target=work, args=(first,)) for first in (100, 200, 300)]
    for thread in threads:
        thread.start()
    for round in range(1, 4):
        save(store, round)
    for thread in threads:
        thread.join()
    assert len(store.rounds()) == 60
    assert len(store.unsaved()) == 60
