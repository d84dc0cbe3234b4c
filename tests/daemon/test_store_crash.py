"""Whatever call a crash or a full disk hits, the state folder stays whole."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from decaf_node.daemon.store import Store, open_store
from decaf_node.errors import TryAgain
from decaf_node.mesh.events import Edge
from tests.daemon import crashing
from tests.daemon.crashing import ANSWER, EDGE
from tests.daemon.disks import small_disk
from tests.daemon.saving import exported_round, files, save, stage


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.daemon.crashing"])
    return context


def signal_of(context: ForkServerContext, work: Callable[..., None], *values: Any) -> int:
    """Run ``work`` in a process of its own; return the signal that killed it, 0 if it ended well."""
    process = context.Process(target=work, args=values)
    process.start()
    process.join()
    code = process.exitcode
    process.close()
    assert code is not None
    assert code <= 0, "the process failed by itself"
    return -code


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder where flushing costs nothing: the order of calls is what matters, and there are hundreds of rounds."""
    place = "/dev/shm" if os.path.isdir("/dev/shm") else tmp_path
    with tempfile.TemporaryDirectory(prefix="decaf-node-", dir=place) as folder:
        yield Path(folder)


@pytest.fixture
def before(memory: Path) -> Path:
    """A state with two saved rounds and a receipt that none of them covers."""
    prepare(memory / "before")
    return memory / "before"


def prepare(state: Path) -> None:
    with contextlib.closing(open_store(state, "home")) as store:
        save(store, 1)
        save(store, 2)
        store.save_receipt(EDGE, 3)
        store.complete_receipt(EDGE.peer, ANSWER)


def check(state: Path, old: int) -> int:
    """Open the folder: it must be the state after round ``old`` or that after the next, whole; return which."""
    with contextlib.closing(open_store(state, "home")) as store:
        round = check_open(store, state, old)
        save(store, round + 1, mixed=(EDGE,))
        assert check_open(store, state, round + 1) == round + 1
    return round


def check_open(store: Store, state: Path, old: int) -> int:
    saved = store.saved()
    assert saved is not None
    assert saved.round in (old, old + 1)
    assert store.unsaved() == ((EDGE,) if saved.round == 2 else ())
    assert exported_round(state) == saved.round
    assert len(files(state)) == 7, "two snapshots, two trainer states, two exports and a link"
    return saved.round


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_call_leaves_the_old_state_or_the_new(
    before: Path, memory: Path, after: bool, processes: ForkServerContext
) -> None:
    found = []
    for number in range(1, 200):
        state = memory / f"state-{number}"
        shutil.copytree(before, state, symlinks=True)
        killed = signal_of(processes, crashing.save_third_round, state, number, after)
        found.append(check(state, old=2))
        if not killed:
            break
        assert killed == signal.SIGKILL
    assert not killed, "there are more calls than were tried"
    assert found == sorted(found), "before one call it is the old state, from there on the new one"
    assert found.count(2) > 10
    assert found.count(3) > 3


@pytest.mark.slow
def test_a_kill_at_any_time_never_loses_what_was_said_to_be_saved(
    before: Path, memory: Path, processes: ForkServerContext
) -> None:
    seed = random.Random(20)
    told = memory / "told"
    told.write_text("2")
    for _ in range(60):
        assert signal_of(processes, crashing.save_for_ever, before, seed.uniform(0.01, 0.1), told) == signal.SIGALRM
        last = int(told.read_text())
        with contextlib.closing(open_store(before, "home")) as store:
            saved = store.saved()
            assert saved is not None
            assert last <= saved.round <= last + 1
            assert exported_round(before) == saved.round
            assert len(store.unsaved()) <= 1
            assert len(files(before)) == 7
            told.write_text(str(saved.round))
    assert int(told.read_text()) > 30


@contextlib.contextmanager
def no_space(number: int) -> Iterator[None]:
    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    undo = crashing.on_call(number, fail)
    try:
        yield
    finally:
        undo()


def test_no_space_at_any_call_is_an_error_and_the_old_state_or_the_new_one(before: Path, memory: Path) -> None:
    outcomes = []
    for number in range(1, 60):
        state = memory / f"state-{number}"
        shutil.copytree(before, state, symlinks=True)
        with contextlib.closing(open_store(state, "home")) as store:
            old = files(state)
            staged = stage(store, 3)
            with no_space(number):
                outcomes.append(commit(store, staged))
            if outcomes[-1] == "disk.full":
                assert files(state) == old
                assert check_open(store, state, 2) == 2
            save(store, 4, mixed=(EDGE,))
            assert check_open(store, state, 4) == 4
    assert outcomes.count("disk.full") > 10
    assert outcomes.count("saved") > 10
    assert outcomes == sorted(outcomes), "once the row is there, the round is saved"


def commit(store: Store, staged: tuple[Any, Any, Path]) -> str:
    try:
        store.commit_round(3, 2, *staged, details={}, mixed=(EDGE,))
    except TryAgain as error:
        return error.reason
    return "saved"


def test_no_space_at_opening_is_an_error_and_later_it_opens(before: Path) -> None:
    outcomes = []
    for number in range(1, 30):
        with no_space(number):
            outcomes.append(opening(before))
    assert {*outcomes} == {"disk.full", "opened"}
    assert check(before, old=2) == 2


def opening(state: Path) -> str:
    try:
        open_store(state, "home").close()
    except TryAgain as error:
        return error.reason
    return "opened"


# --- a disk that is really full -----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", size_kib=2048) as folder:
        yield folder


def leave(disk: Path, free_bytes: int) -> None:
    """Fill the disk with ballast until ``free_bytes`` are left."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    there = os.statvfs(disk)
    ballast.write_bytes(bytes(there.f_bavail * there.f_frsize - free_bytes))


def test_a_full_disk_keeps_the_old_state_and_is_over_when_there_is_room(disk: Path) -> None:
    state = disk / "state"
    prepare(state)
    outcomes = []
    with contextlib.closing(open_store(state, "home")) as store:
        for pages in range(12):
            staged = stage(store, 3)
            leave(disk, pages * 4096)
            outcomes.append(commit(store, staged))
            if outcomes[-1] == "saved":
                break
            check_open(store, state, 2)
        assert outcomes.count("disk.full") >= 1, "the database's log must have had no room"
        assert outcomes[-1] == "saved"
        assert check_open(store, state, 3) == 3


def test_receipts_and_history_say_that_the_disk_is_full(disk: Path) -> None:
    state = disk / "state"
    prepare(state)
    with contextlib.closing(open_store(state, "home")) as store:
        leave(disk, 0)
        with pytest.raises(TryAgain) as error:
            save_many_receipts(store)
        assert error.value.reason == "disk.full"
        assert store.unsaved() == (EDGE,)
        leave(disk, 200_000)
        store.save_receipt(EDGE, 4)
    assert check(state, old=2) == 2


def save_many_receipts(store: Store) -> None:
    for number in range(10_000):
        store.save_receipt(Edge(f"PEER{number}", "c" * 64, "d" * 64, 0.5), 3)


def test_a_full_disk_at_the_start_is_one_sentence(disk: Path) -> None:
    leave(disk, 0)
    with pytest.raises(TryAgain) as error:
        open_store(disk / "state", "home").close()
    assert error.value.reason == "disk.full"
    leave(disk, 1_000_000)
    open_store(disk / "state", "home").close()


def test_a_disk_that_grows_again_saves_again(disk: Path) -> None:
    state = disk / "state"
    prepare(state)
    with contextlib.closing(open_store(state, "home")) as store:
        leave(disk, 8192)
        with pytest.raises(OSError, match="No space left"):
            stage(store, 3, values=20_000)
        store.discard_staging()
        check_open(store, state, 2)
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        save(store, 3, mixed=(EDGE,), values=20_000)
        assert check_open(store, state, 3) == 3
