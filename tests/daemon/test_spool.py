from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decaf_node.daemon.spool import Partial, Spool
from decaf_node.errors import BadData, DecafError, TryAgain
from decaf_node.link import File
from tests.daemon.crashing import on_call
from tests.daemon.disks import small_disk

CONTENT = bytes(range(256)) * 40
OTHER = b"something else"
PEER, ANOTHER = "P" * 52, "Q" * 52


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Clock:
    """Seconds since 1970, as they would be ``ahead`` seconds later."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(tmp_path: Path, clock: Clock) -> Spool:
    return Spool(tmp_path / "spool", limit_bytes=100_000, clock=clock)


def take(spool: Spool, content: bytes, piece: int = 1000) -> None:
    partial = spool.partial(digest(content), len(content), PEER)
    while partial.offset < len(content):
        partial.write(partial.offset, content[partial.offset : partial.offset + piece])
    partial.finish()


def names(spool: Spool) -> set[str]:
    return {path.name for path in spool.folder.iterdir()}


def reason(error: pytest.ExceptionInfo[DecafError]) -> str:
    return error.value.reason


def test_a_snapshot_written_in_pieces_is_read_as_a_whole(spool: Spool) -> None:
    assert not spool.has(digest(CONTENT))
    take(spool, CONTENT)
    assert spool.has(digest(CONTENT))
    assert spool.path(digest(CONTENT)).read_bytes() == CONTENT
    assert names(spool) == {f"{digest(CONTENT)}.safetensors"}
    assert spool.read(digest(CONTENT), 0, 100) == CONTENT[:100]
    assert spool.read(digest(CONTENT), 10_200, 10_000) == CONTENT[10_200:]
    assert spool.read(digest(CONTENT), len(CONTENT), 10) == b""


def test_a_saved_snapshot_is_kept_while_it_is_needed(spool: Spool, tmp_path: Path) -> None:
    saved = tmp_path / "saved.safetensors"
    saved.write_bytes(CONTENT)
    spool.keep(File(str(saved), digest(CONTENT), len(CONTENT)))
    saved.unlink()
    spool.prune(frozenset({digest(CONTENT)}))
    assert spool.path(digest(CONTENT)).read_bytes() == CONTENT
    spool.prune(frozenset())
    assert names(spool) == set()


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=300), cuts=st.lists(st.integers(1, 120)), tries=st.lists(st.integers(0, 5)))
def test_however_often_it_breaks_off_it_comes_out_right(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, cuts: list[int], tries: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    for pieces in tries:
        spool = Spool(folder, 10_000)
        partial = spool.partial(digest(content), len(content), PEER)
        for size in cuts[:pieces]:
            partial.write(partial.offset, content[partial.offset : partial.offset + size])
    take(Spool(folder, 10_000), content, piece=50)
    assert Spool(folder, 10_000).verified(digest(content)) is not None


def test_an_earlier_try_goes_on_where_it_ended_also_after_a_restart(spool: Spool) -> None:
    spool.partial(digest(CONTENT), len(CONTENT), PEER).write(0, CONTENT[:3000])
    restarted = Spool(spool.folder, 100_000)
    partial = restarted.partial(digest(CONTENT), len(CONTENT), PEER)
    assert partial.offset == 3000
    partial.write(3000, CONTENT[3000:])
    file = partial.finish()
    assert (file.path, file.digest, file.size_bytes) == (
        str(spool.path(digest(CONTENT))),
        digest(CONTENT),
        len(CONTENT),
    )


def test_a_part_that_was_spoilt_between_two_tries_is_thrown_away(spool: Spool) -> None:
    spool.partial(digest(CONTENT), len(CONTENT), PEER).write(0, CONTENT[:3000])
    (part,) = spool.folder.iterdir()
    part.write_bytes(b"x" * 3000)
    partial = spool.partial(digest(CONTENT), len(CONTENT), PEER)
    partial.write(3000, CONTENT[3000:])
    with pytest.raises(BadData) as error:
        partial.finish()
    assert reason(error) == "snapshot.digest-differs"
    assert names(spool) == set()
    take(spool, CONTENT)


def test_a_part_longer_than_the_offer_begins_anew(spool: Spool) -> None:
    spool.partial(digest(OTHER), 5000, PEER).write(0, b"x" * 5000)
    assert spool.partial(digest(OTHER), len(OTHER), PEER).offset == 0
    take(spool, OTHER)


@pytest.fixture
def begun(spool: Spool) -> Partial:
    partial = spool.partial(digest(CONTENT), len(CONTENT), PEER)
    partial.write(0, CONTENT[:3000])
    return partial


@pytest.mark.parametrize(
    ("offset", "data", "expected"),
    [
        (3001, b"x", "snapshot.out-of-order"),
        (2999, b"x", "snapshot.out-of-order"),
        (0, CONTENT[:3000], "snapshot.out-of-order"),
        (3000, CONTENT, "snapshot.too-long"),
    ],
    ids=["gap", "overlap", "again", "too-long"],
)
def test_what_does_not_follow_is_refused_and_changes_nothing(
    begun: Partial, offset: int, data: bytes, expected: str
) -> None:
    with pytest.raises(BadData) as error:
        begun.write(offset, data)
    assert reason(error) == expected
    assert begun.path.read_bytes() == CONTENT[:3000]
    begun.write(3000, CONTENT[3000:])
    begun.finish()


def test_a_part_cannot_be_finished_before_its_end(begun: Partial) -> None:
    with pytest.raises(BadData) as error:
        begun.finish()
    assert reason(error) == "snapshot.too-short"


def test_other_bytes_than_promised_are_thrown_away(spool: Spool) -> None:
    partial = spool.partial(digest(CONTENT), len(OTHER), PEER)
    partial.write(0, OTHER)
    with pytest.raises(BadData) as error:
        partial.finish()
    assert reason(error) == "snapshot.digest-differs"
    assert names(spool) == set()
    assert spool.used_bytes() == 0


def test_a_second_try_ends_the_first(spool: Spool, begun: Partial) -> None:
    second = spool.partial(digest(CONTENT), len(CONTENT), PEER)
    for late in (lambda: begun.write(3000, CONTENT[3000:]), begun.finish):
        with pytest.raises(TryAgain) as error:
            late()
        assert reason(error) == "spool.taken-over"
    second.write(3000, CONTENT[3000:])
    second.finish()


def test_a_second_try_that_begins_between_looking_and_writing_ends_the_first(spool: Spool, begun: Partial) -> None:
    undo = on_call(1, lambda: spool.partial("b" * 64, 10, PEER).release())
    try:
        with pytest.raises(TryAgain) as error:
            begun.write(3000, CONTENT[3000:])
    finally:
        undo()
    assert reason(error) == "spool.taken-over"


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "é" * 64])
def test_only_a_digest_names_a_file(spool: Spool, name: str) -> None:
    for call in (
        spool.path,
        spool.has,
        spool.verified,
        lambda d: spool.read(d, 0, 1),
        lambda d: spool.partial(d, 1, PEER),
    ):
        with pytest.raises(BadData) as error:
            call(name)
        assert reason(error) == "snapshot.bad-digest"
    assert names(spool) == set()


def test_what_is_not_here_is_said_to_be_gone(spool: Spool) -> None:
    with pytest.raises(TryAgain) as error:
        spool.read(digest(CONTENT), 0, 1)
    assert reason(error) == "spool.gone"
    assert spool.verified(digest(CONTENT)) is None


def test_a_whole_file_that_a_power_cut_has_spoilt_is_found_and_removed(spool: Spool) -> None:
    take(spool, CONTENT)
    assert spool.verified(digest(CONTENT)) is not None
    spool.path(digest(CONTENT)).write_bytes(bytes(len(CONTENT)))
    assert spool.verified(digest(CONTENT)) is None
    assert not spool.has(digest(CONTENT))


# --- what is removed ----------------------------------------------------------------------------------------------


def test_only_what_is_kept_stays(spool: Spool) -> None:
    take(spool, CONTENT)
    take(spool, OTHER)
    spool.prune(frozenset({digest(OTHER)}))
    assert names(spool) == {f"{digest(OTHER)}.safetensors"}
    spool.prune(frozenset())
    assert names(spool) == set()


def test_the_trainers_file_stays_until_it_was_spoken_of(spool: Spool, clock: Clock) -> None:
    written = spool.folder / f"{digest(CONTENT)}.safetensors"
    written.write_bytes(CONTENT)
    spool.prune(frozenset())
    assert written.exists(), "it may just not be announced yet"
    spool.prune(frozenset({digest(CONTENT)}))
    assert written.exists()
    spool.prune(frozenset())
    assert not written.exists()
    written.write_bytes(CONTENT)
    clock.ahead = 3700.0
    spool.prune(frozenset())
    assert not written.exists(), "nobody will ever speak of it"


def test_what_the_trainer_is_writing_stays_while_it_is_young(spool: Spool, clock: Clock) -> None:
    writing = spool.folder / ".4711.tmp"
    writing.write_bytes(CONTENT)
    spool.prune(frozenset())
    assert writing.exists()
    clock.ahead = 3700.0
    spool.prune(frozenset())
    assert not writing.exists()


def test_a_part_stays_while_it_is_written_or_kept(spool: Spool, begun: Partial, clock: Clock) -> None:
    spool.prune(frozenset())
    assert begun.path.exists()
    clock.ahead = 700.0
    spool.prune(frozenset())
    assert begun.path.exists(), "its stream is up"
    begun.release()
    spool.prune(frozenset({digest(CONTENT)}))
    assert begun.path.exists()
    spool.prune(frozenset())
    assert names(spool) == set()
    with pytest.raises(TryAgain):
        begun.write(3000, CONTENT[3000:])
    assert spool.used_bytes() == 0


def test_a_restart_keeps_everything_and_knows_it(spool: Spool) -> None:
    take(spool, CONTENT)
    take(spool, OTHER)
    restarted = Spool(spool.folder, 100_000)
    assert restarted.verified(digest(CONTENT)) is not None
    restarted.prune(frozenset({digest(OTHER)}))
    assert names(restarted) == {f"{digest(OTHER)}.safetensors"}


# --- bounds -------------------------------------------------------------------------------------------------------


def test_promised_bytes_count_before_they_come(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=1000)
    (tmp_path / ".1.tmp").write_bytes(b"x" * 100)
    first = spool.partial("a" * 64, 600, PEER)
    assert spool.used_bytes() == 700
    with pytest.raises(TryAgain) as error:
        spool.partial("b" * 64, 301, ANOTHER)
    assert reason(error) == "spool.full"
    assert "limits.spool_bytes" in error.value.message
    first.write(0, b"x" * 500)
    spool.partial("a" * 64, 600, PEER)
    spool.partial("b" * 64, 300, ANOTHER)
    assert spool.used_bytes() == 1000


def test_room_is_kept_while_the_stream_is_up_and_no_longer(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=1000)
    first = spool.partial("a" * 64, 900, PEER)
    first.write(0, b"x" * 10)
    first.release()
    assert spool.used_bytes() == 10
    spool.partial("b" * 64, 990, ANOTHER).release()
    assert spool.partial("a" * 64, 900, PEER).offset == 10


def test_what_nobody_goes_on_with_makes_room_the_oldest_first(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=1000)
    for age, peer in ((300, "R" * 52), (200, PEER)):
        left = spool.partial("a" * 64, 400, peer)
        left.write(0, b"x" * 400)
        left.release()
        os.utime(left.path, (time.time() - age, time.time() - age))
    spool.partial("b" * 64, 600, ANOTHER)
    assert names(spool) == {f"{'a' * 64}.{PEER}.part", f"{'b' * 64}.{ANOTHER}.part"}
    with pytest.raises(TryAgain):
        spool.partial("c" * 64, 401, "S" * 52)


def test_a_peer_has_one_part(spool: Spool) -> None:
    for number in range(20):
        spool.partial(f"{number:064x}", 90_000, PEER).write(0, b"x" * 1000)
    assert names(spool) == {f"{19:064x}.{PEER}.part"}
    assert spool.used_bytes() == 90_000


def test_nobody_can_take_over_or_spoil_what_another_sends(spool: Spool, begun: Partial) -> None:
    spoiler = spool.partial(digest(CONTENT), len(CONTENT), ANOTHER)
    assert spoiler.offset == 0
    spoiler.write(0, bytes(len(CONTENT)))
    begun.write(3000, CONTENT[3000:])
    with pytest.raises(BadData):
        spoiler.finish()
    begun.finish()
    assert spool.verified(digest(CONTENT)) is not None


def test_pruning_makes_room(spool: Spool) -> None:
    take(spool, b"x" * 60_000)
    with pytest.raises(TryAgain):
        spool.partial(digest(CONTENT), 50_000, PEER)
    spool.prune(frozenset())
    spool.partial(digest(CONTENT), 50_000, PEER)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", size_kib=256) as folder:
        yield folder


def test_a_full_disk_changes_nothing_and_the_part_goes_on_when_there_is_room(disk: Path) -> None:
    content = os.urandom(120 * 1024)
    spool = Spool(disk / "spool", 10_000_000)
    (disk / "ballast").write_bytes(bytes(180 * 1024))
    partial = spool.partial(digest(content), len(content), PEER)
    partial.write(0, content[:1000])
    with pytest.raises(TryAgain) as error:
        partial.write(1000, content[1000:])
    assert reason(error) == "disk.full"
    assert partial.path.read_bytes() == content[:1000]
    (disk / "ballast").unlink()
    partial.write(1000, content[1000:])
    partial.finish()
    assert spool.verified(digest(content)) is not None
