"""What is said: log lines, problems, notices, the history of rounds, and the client's errors."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import math
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from decaf_node import link
from decaf_node.daemon import logs
from decaf_node.daemon.client import Client
from decaf_node.daemon.history import History
from decaf_node.daemon.lines import PeerLines, RoundLines, amount
from decaf_node.daemon.problems import Notices, Problem, Problems, problem_of
from decaf_node.daemon.reports import EdgeReport
from decaf_node.daemon.tasks import Tasks
from decaf_node.daemon.traffic import Bytes, Traffic
from decaf_node.errors import DaemonUnreachable, TryAgain
from decaf_node.mesh.events import Edge
from decaf_node.mesh.view import NodeView, PeerView

EDGE = Edge("PEER", "own", "theirs", 0.5)
OTHER = Edge("OTHER", "own", "others", 0.25)


@pytest.fixture
def own_logger() -> Iterator[None]:
    logger = logging.getLogger(logs.NAME)
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.usefixtures("own_logger")
def test_plain_lines_are_one_line_each() -> None:
    stream = io.StringIO()
    logs.configure("info", "auto", stream)
    logging.getLogger("decaf_node.daemon.x").info("one\ntwo \x1b[31m")
    logging.getLogger("decaf_node.daemon.x").debug("not this")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(" info     one two  [31m")


@pytest.mark.usefixtures("own_logger")
def test_json_lines_carry_fields() -> None:
    stream = io.StringIO()
    logs.configure("debug", "json", stream)
    logging.getLogger("decaf_node.daemon.x").warning("%s left", "b", extra=logs.fields(peer="B"))
    document = json.loads(stream.getvalue())
    assert {**document, "time": 0} == {"time": 0, "level": "warning", "part": "x", "message": "b left", "peer": "B"}


def test_problems_are_said_when_they_begin_and_kept_until_they_end(caplog: pytest.LogCaptureFixture) -> None:
    problems = Problems()
    disk, trainer = Problem("disk.full", "The disk is full."), Problem("trainer.lost", "No trainer.")
    for _ in range(2):
        problems.set("disk", disk)
    problems.set("trainer", trainer)
    assert list(problems.by_place().values()) == [disk, trainer]
    assert caplog.text.count("The disk is full.") == 1
    problems.clear("disk")
    problems.clear("disk")
    assert list(problems.by_place().values()) == [trainer]


def test_a_problem_has_the_remedy_of_an_error_apart() -> None:
    error = TryAgain("disk.full", "The disk is full; make room.")
    assert problem_of(error, "Not saved: ") == Problem("disk.full", "Not saved: The disk is full.", "Make room.")
    assert problem_of(TryAgain("a.b", "It is so.")).words == "It is so."


def test_notices_are_not_repeated_at_once(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    notices = Notices(lambda: now)

    def count() -> int:
        return sum(record.levelno == logging.WARNING for record in caplog.records)

    notices.say("a.b", "Refused.", "P")
    notices.say("a.b", "Refused.", "P")
    assert count() == 1
    notices.say("a.b", "Refused.", "Q")
    assert count() == 2
    now = 60.0
    notices.say("a.b", "Refused.", "P")
    assert count() == 2
    notices.say("a.b", "Refused in another way.", "P")
    assert count() == 3
    now = 1000.0
    notices.say("a.b", "Refused in another way.", "P")
    assert count() == 4


def test_a_row_of_the_history_is_put_together() -> None:
    now = 10.0
    history = History(lambda: now, lambda: 1234.5)
    history.trained(link.RoundTrained(1, link.File("p", "d", 1), 1, 3, 0.5, 2.0))
    history.inspected("PEER", "theirs", 3.0)
    history.inspected("OTHER", "others", 4.0)
    history.clipped("OTHER", "others", 0.5)
    now = 12.5
    history.mixing(1, (EDGE, OTHER), Bytes(10, 20))
    assert history.last is None
    row = history.mixed(link.RoundMixed(1, 2, 0.1, 0.2, 0.3, 0.05))
    assert row == history.last
    assert (row.steps, row.loss, row.train_seconds, row.exchange_seconds, row.mix_seconds) == (3, 0.5, 2.0, 2.5, 0.05)
    assert row.edges == (EdgeReport("PEER", 0.5, 3.0), EdgeReport("OTHER", 0.25, 4.0, 0.5))
    assert row.consensus_distance == pytest.approx(math.sqrt((9 + 16) / 2))
    assert (row.sent_bytes, row.received_bytes, row.time, row.saved) == (10, 20, 1234.5, False)
    later = history.evaluated(link.Evaluated(1, 0.7, 0.9, 10, 1.0))
    assert later is not None
    assert (later.evaluation_loss, later.evaluation_accuracy) == (0.7, 0.9)
    history.saved(1)
    assert history.last is not None
    assert history.last.saved


def test_an_evaluation_may_come_before_the_mix() -> None:
    history = History()
    assert history.evaluated(link.Evaluated(1, 0.7, None, 10, 1.0)) is None
    history.mixing(1, (), Bytes())
    row = history.mixed(link.RoundMixed(1, 0, 0.0, 0.0, 0.3, 0.05))
    assert row.evaluation_loss == 0.7
    assert row.consensus_distance is None


def test_an_evaluation_that_was_asked_for_counts_where_the_round_has_none() -> None:
    history = History()
    asked = link.EvaluatedNow(1, 0.7, 0.9, 10, 1.0)
    assert history.evaluated_now(asked) is None  # nothing is mixed yet
    history.mixing(1, (), Bytes())
    history.mixed(link.RoundMixed(1, 0, 0.0, 0.0, 0.3, 0.05))
    assert history.evaluated_now(replace(asked, examples=0)) is None
    row = history.evaluated_now(asked)
    assert row is not None
    assert (row.round, row.evaluation_loss, row.evaluation_accuracy) == (1, 0.7, 0.9)
    assert history.last == row
    assert history.evaluated_now(replace(asked, loss=0.1)) is None


def test_traffic_counts_by_round_and_in_all() -> None:
    traffic = Traffic()
    traffic.add(sent=5)
    traffic.add(received=7)
    assert traffic.since_mark() == Bytes(5, 7)
    traffic.add(sent=1)
    assert traffic.since_mark() == Bytes(1, 0)
    assert traffic.total == Bytes(6, 7)


def test_a_round_is_one_line_whenever_it_is_evaluated(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    history, lines = History(), RoundLines(2, lambda peer: f"<{peer}>")
    rows = []
    for round in (1, 2, 3, 4):
        history.trained(link.RoundTrained(round, link.File("p", "d", 1), 1, 3, 0.5, 2.0))
        history.mixing(round, (EDGE,), Bytes(18_400_000, 999))
        rows.append(history.mixed(link.RoundMixed(round, 1, 0.0, 0.0, 0.3, 0.05)))
    lines.mixed(rows[0])
    assert caplog.messages == [
        "Round 1; mixed with <PEER>; loss 0.5000; sent 18.4 MB, received 999 B; "
        f"{2.05 + rows[0].exchange_seconds:.1f} s"
    ]
    lines.mixed(rows[1])
    assert len(caplog.messages) == 1
    row = history.evaluated(link.Evaluated(2, 0.7, 0.9, 10, 1.0))
    assert row is not None
    lines.evaluated(row)
    assert "accuracy 0.900" in caplog.messages[1]
    lines.mixed(rows[3])
    lines.flush()
    lines.flush()
    assert caplog.messages[2].startswith("Round 4")
    assert len(caplog.messages) == 3


def test_bytes_as_people_read_them() -> None:
    assert [amount(count) for count in (0, 999, 1000, 18_400_000, 5e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "18.4 MB",
        "5000.0 GB",
    ]


def test_peers_that_come_and_go_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines = PeerLines(str.lower)

    def view(state: str) -> NodeView:
        peer = PeerView("P", "p", state, (), True, 1, 0.1, None, None, None, None, None, 0, "")
        return NodeView("training", 1, 0, 1, (), 0, (peer,))

    for state in ("gone", "alive", "alive", "late", "gone"):
        lines.watch(view(state))
    assert caplog.messages == ["Peer p is alive.", "Peer p is late.", "Peer p is gone."]


async def test_the_first_task_that_fails_is_told() -> None:
    tasks = Tasks()

    async def fail() -> None:
        raise TryAgain("a.b", "It failed.")

    tasks.spawn(fail())
    with pytest.raises(TryAgain):
        await asyncio.wait_for(tasks.failed, 5.0)
    tasks.fail(TryAgain("c.d", "So did this."))
    await tasks.cancel()


def test_no_daemon_is_one_sentence(tmp_path: Path) -> None:
    with Client(tmp_path / "control.sock") as client, pytest.raises(DaemonUnreachable) as caught:
        client.status()
    assert caught.value.reason == "daemon.not-running"
    assert str(tmp_path) in caught.value.message
    assert "decaf-node run" in caught.value.message


def test_a_daemon_that_does_not_answer_is_told_apart() -> None:
    with tempfile.TemporaryDirectory(prefix="decaf-", dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as mute:
        path = Path(folder) / "control.sock"
        mute.bind(str(path))
        mute.listen()
        with Client(path, timeout=0.3) as client, pytest.raises(TryAgain) as caught:
            client.status()
        assert caught.value.reason == "daemon.slow"


def test_the_client_is_quick_to_import() -> None:
    program = (
        "import sys, decaf_node.daemon.client; "
        "print([name for name in ('torch', 'asyncio', 'pydantic', 'zeroconf', 'cryptography') if name in sys.modules])"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 5
    assert done.stdout.strip() in ("[]", "['asyncio']")  # grpc brings asyncio


def test_what_comes_and_goes_is_said_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    problems = Problems(lambda: now)
    for place in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        problems.set("clone", Problem("identity.cloned", f"There is a clone at {place}."), every=300.0)
        assert place in problems.by_place()["clone"].sentence
        problems.clear("clone")
    assert caplog.text.count("There is a clone") == 1
    now = 300.0
    problems.set("clone", Problem("identity.cloned", "There is a clone at 10.0.0.4."), every=300.0)
    assert "10.0.0.4" in caplog.text
