"""``decaf-node top``: what its screen shows at any size, and a real one in a real terminal with a real daemon."""

from __future__ import annotations

import io
import signal
import termios
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from decaf_node.cli.top.curve import ASCII, curve, thinned
from decaf_node.cli.top.feed import Lost, Past, Wrong
from decaf_node.cli.top.screen import screen
from decaf_node.cli.top.sight import LINES, Sight
from decaf_node.daemon.reports import (
    AlertReport,
    Change,
    EdgeReport,
    EventReport,
    PeerReport,
    PhaseReport,
    ProblemReport,
    RoundReport,
    StateReport,
)
from tests.cli.command import decaf_node
from tests.cli.reports import OTHER, peer_report, round_report, status_report
from tests.cli.terminal import CURSOR_SHOWN, ENTERED, LEFT, Terminal
from tests.cli.test_membership import ask_json, founded, joined
from tests.cli.test_operators import open_to_operators
from tests.daemon.processes import PATIENCE, mesh

ROUNDS = tuple(round_report(number) for number in range(1, 41))


def told(what: Change | StateReport, sequence: int = 1, instance: str = "1") -> EventReport:
    return EventReport(instance, sequence, 1_700_000_100.0, what)


def sight_of(*peers: PeerReport, rounds: tuple[RoundReport, ...] = ROUNDS) -> Sight:
    sight = Sight()
    sight.take(told(StateReport(status_report(round=41), peers or (peer_report(),), (), 5.0), 0))
    sight.take(Past(rounds))
    return sight


def shown(sight: Sight, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    lines = screen(sight, console)
    assert len(lines) == height
    return [line.plain for line in lines]


@pytest.mark.parametrize(("width", "height"), [(10, 3), (40, 12), (80, 24), (132, 43), (300, 90)])
def test_it_fills_any_terminal_and_has_no_more_lines(width: int, height: int) -> None:
    many = [replace(peer_report(f"机器-{n} with a rather long name"), node=f"{n:052}") for n in range(30)]
    sight = sight_of(*many)
    sight.take(told(ProblemReport("disk", "The disk is full; " + "free some space. " * 20)))
    lines = shown(sight, width, height)
    assert lines[-1] == "q: quit"
    table = [line for line in lines if "机器-" in line or line.startswith("neighbour")]
    assert all(cell_len(line) <= width for line in table)
    assert bool(table) == (height > 12)


def test_what_is_wrong_stands_on_top_with_its_remedy_and_goes_when_it_is_over() -> None:
    sight = sight_of()
    assert shown(sight)[2] == "Nothing is wrong."
    sight.take(told(ProblemReport("disk", "The disk is full; free some space.")))
    assert shown(sight)[2] == "! The disk is full; free some space."
    asked = AlertReport("disk.full", "critical", "disk", 0.0, "1 MB is left.", "Make room.")
    sight.take(Wrong((asked,)))
    assert shown(sight)[2] == "! 1 MB is left. Make room."
    sight.take(told(ProblemReport("disk", ""), 2))
    assert shown(sight)[2] == "Nothing is wrong."
    sight.take(Lost("No daemon answers."))
    assert shown(sight)[2].startswith("! Connection lost, trying again; what you see is old. No daemon answers.")
    sight.take(told(PhaseReport("mixing", 42), 3))
    assert shown(sight)[1].startswith("round 42, mixing   loss 0.025   accuracy 90.0 %   distance 0.250   ")
    assert shown(sight)[2] == "Nothing is wrong."


def test_the_worst_stands_first_also_where_there_is_room_for_one() -> None:
    sight = sight_of()
    for place, severity in (("a", "warning"), ("b", "critical")):
        alert = AlertReport(f"{place}.x", severity, place, 0.0, f"{severity}.", "")
        sight.take(told(ProblemReport(place, f"It is {severity}.", alert)))
    assert shown(sight)[2:4] == ["! It is critical.", "! It is warning."]
    assert shown(sight, height=6)[2] == "! It is critical."


def test_a_neighbour_has_its_lag_and_its_rate() -> None:
    row = shown(sight_of(peer_report(), replace(peer_report("far", "late"), node="F" * 52, neighbour=False, mixes=0)))
    assert row[4].split() == ["neighbour", "state", "round", "behind", "weight", "distance", "clip", "mixes/h"]
    assert row[5].split() == ["desk-b", "alive", "4", "37", "0.50", "0.250", "1.00", "3600"]  # a round a second
    assert row[6] == ""
    narrow = shown(sight_of(), width=34)
    assert narrow[4].split() == ["neighbour", "state", "round", "behind"]


def test_an_evaluation_that_follows_is_the_same_round_and_the_same_line() -> None:
    sight = sight_of()
    for accuracy in (None, 0.95):
        sight.take(told(round_report(41, accuracy), 2))
    assert [row.round for row in sight.rounds[-2:]] == [40, 41]
    assert sight.rounds[-1].evaluation_accuracy == 0.95
    assert sum("Round 41;" in line for line in sight.lines) == 1
    assert "mixed with desk-b" in sight.lines[-1]


def test_a_mix_is_no_line_but_a_member_that_goes_is_and_lines_are_bounded() -> None:
    sight = sight_of()
    before = len(sight.lines)
    sight.take(told(replace(peer_report(), mixes=5), 2))
    assert len(sight.lines) == before
    sight.take(told(peer_report(state="gone"), 3))
    assert "desk-b is gone" in sight.lines[-1]
    for number in range(2 * LINES):
        sight.take(told(ProblemReport(f"p{number}", "Something."), 4 + number))
    assert len(sight.lines) == LINES


def test_mixes_an_hour_are_those_of_the_last_hour() -> None:
    edges = (EdgeReport(OTHER, 0.5, 0.2),)
    rounds = tuple(replace(round_report(n), time=600.0 * n, edges=edges if n > 10 else ()) for n in range(1, 21))
    assert sight_of(rounds=rounds).mixes_an_hour()[OTHER] == 6
    assert sight_of(rounds=rounds[:1]).bytes_an_hour() is None


def test_a_curve_goes_from_its_lowest_to_its_highest() -> None:
    assert curve([1.0, 1.7, 3.0], 10, 1).text == ["▁▃█"]
    assert curve([3.0, None, 1.0], 10, 2, ASCII).text == ["|  ", "| ."]
    assert curve([2.0, 2.0], 10, 1).text == ["▄▄"]
    assert curve([None, float("nan")], 10, 2).text == ["", ""]
    assert thinned([1.0, 3.0, 5.0, None, 2.0], 3) == [2.0, 5.0, 2.0]


def test_without_a_terminal_it_points_to_watch(tmp_path: Path) -> None:
    done = decaf_node("top", "--runtime", tmp_path)
    assert (done.returncode, done.stdout) == (64, "")
    assert "decaf-node watch" in done.stderr
    with Terminal("top", "--runtime", tmp_path, TERM="dumb") as terminal:
        assert terminal.wait() == 64
        assert "[top.no-terminal]" in " ".join(terminal.lines)


def test_without_a_daemon_it_is_69_and_one_sentence(tmp_path: Path) -> None:
    with Terminal("top", "--runtime", tmp_path) as terminal:
        assert terminal.wait() == 69
        assert b"[daemon.not-running]" in terminal.written
        assert ENTERED not in terminal.written


def as_before(terminal: Terminal) -> bool:
    """Tell whether the terminal is as the program found it."""
    restored = terminal.written.rstrip().endswith(CURSOR_SHOWN) or LEFT + CURSOR_SHOWN in terminal.written
    return restored and LEFT in terminal.written and termios.tcgetattr(terminal.slave) == terminal.modes


def in_place(terminal: Terminal, name: str) -> bool:
    """Tell whether the first line, the verdict and the last one are where they belong."""
    lines = terminal.lines
    return lines[0].startswith(f"{name} (") and lines[2] == "Nothing is wrong." and lines[-1] == "q: quit"


@pytest.mark.slow
def test_in_a_terminal_over_a_resize_and_a_restart_until_q() -> None:
    with mesh() as make:
        a = make("a", script={"seconds": 0.2}).start()
        b = make("b", a, script={"seconds": 0.2}).start()
        b.until(lambda status: status.mixes >= 3)
        with Terminal("top", "--runtime", a.runtime) as terminal:
            terminal.until(lambda lines: in_place(terminal, "a") and lines[5].startswith("b "))
            terminal.until(lambda lines: any("mixed with b" in line for line in lines))
            assert "█" in "".join(terminal.lines)
            for columns, lines in ((50, 16), (132, 43)):
                terminal.resize(columns, lines)
                terminal.until(lambda lines: in_place(terminal, "a") and any("mixed with b" in it for it in lines))
            b.signal(signal.SIGTERM)
            terminal.until(lambda lines: any(line.startswith("b ") and " gone " in line for line in lines))
            a.end()
            terminal.until(lambda lines: lines[2].startswith("! Connection lost, trying again;"))
            a.start()
            terminal.until(lambda lines: in_place(terminal, "a"))
            terminal.until(lambda lines: any("the daemon was started again" in line for line in lines))
            terminal.type(b"q")
            assert terminal.wait() == 0
            assert as_before(terminal)


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [(b"\x03", 130), (b"\x1c", 131), (signal.SIGTERM, 143)])
def test_without_colour_and_ended_otherwise(end: bytes | signal.Signals, code: int) -> None:
    with mesh() as make:
        a = make("a").start()
        a.until(lambda status: status.round >= 2)
        with Terminal("top", "--runtime", a.runtime, NO_COLOR="1", COLUMNS="200") as terminal:
            terminal.until(lambda lines: in_place(terminal, "a"))
            if isinstance(end, bytes):
                terminal.type(end)
            else:
                terminal.signal(end)
            assert terminal.wait() == code
            assert as_before(terminal)
            assert not any(colour in terminal.written for colour in (b"[32m", b"[36m", b";32m", b"[31m"))


@pytest.mark.slow
def test_it_ends_with_its_terminal() -> None:
    with mesh() as make:
        a = make("a").start()
        a.until(lambda status: status.round >= 2)
        with Terminal("top", "--runtime", a.runtime) as terminal:
            terminal.until(lambda lines: in_place(terminal, "a"))
            terminal.hang_up()
            assert terminal.process.wait(PATIENCE) == 129


@pytest.mark.slow
def test_from_another_device_until_it_is_put_out() -> None:
    with mesh() as make:
        a = founded(make)
        b = joined(make, "b", a)
        member = b.until(lambda status: status.round >= 1).node
        place = open_to_operators(a)
        places = ("--state", b.state, "--runtime", b.runtime, "--config", b.config)
        with Terminal("top", *places, "--node", place) as terminal:
            terminal.until(lambda lines: lines[-1] == "q: quit" and a.status().node[:4] in lines[0])
            ask_json(a, "revoke", member)
            assert terminal.wait() == 77
            assert b"security.revoked" in terminal.written
            assert as_before(terminal)
