"""The screen of ``decaf-node status``, and how numbers are written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from decaf_node.cli.looking import peer_table
from decaf_node.cli.screen import status_screen
from decaf_node.cli.words import duration, number, percent, short_id, size
from decaf_node.daemon.reports import AlertReport, GpuReport, MachineReport, PeerReport, PrivacyReport, StatusReport
from tests.cli.reports import NODE, peer_report, status_report


def shown(report: StatusReport, *known: PeerReport, alerts: Sequence[AlertReport] = ()) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80).print(status_screen(report, known, alerts))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_the_essential_comes_first() -> None:
    lines = shown(status_report(phase="exchanging"), peer_report("desk-b"))
    assert lines[0] == "orin-a (DCF7-K2QX) in mesh lab"
    assert lines[1] == "Nothing is wrong."
    assert "round       4, exchanging, waits for desk-b" in lines
    assert "saved       round 3" in lines
    assert "neighbours  desk-b" in lines
    assert any("accuracy 90.0 %" in line for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_a_problem_stands_on_top() -> None:
    lines = shown(status_report(problem="The disk is full; free some space."))
    assert lines[1] == "! The disk is full; free some space."


def test_all_that_is_wrong_is_listed() -> None:
    alerts = (
        AlertReport("disk.full", "critical", "disk", 1e9, "The disk is full.", "Make room."),
        AlertReport("mesh.alone", "warning", "alone", 2e9, "No other node is seen.", ""),
    )
    lines = shown(status_report(problem="The disk is full. Make room. No other node is seen."), alerts=alerts)
    assert lines[1].startswith("! The disk is full. Make room. (since 2001-09-")
    assert lines[2].startswith("! No other node is seen. (since 2033-05-")


def test_a_young_node_has_nothing_to_show_yet() -> None:
    lines = shown(status_report(round=1))
    assert "saved       nothing yet" in lines
    assert "held out    not evaluated yet" in lines
    assert not any(line.startswith("adapter") for line in lines)


def test_a_privacy_budget_has_a_line_where_there_is_one() -> None:
    assert not any(line.startswith("privacy") for line in shown(status_report()))
    budget = PrivacyReport(epsilon=8.0, delta=1e-5, spent=3.2, steps=1600, steps_left=2400, noise=0.9)
    wanted = "privacy     epsilon 3.200 of 8 (delta 1e-05), 2,400 steps left"
    assert wanted in shown(status_report(privacy=budget))
    over = PrivacyReport(epsilon=8.0, delta=1e-5, spent=7.996, steps=4000, steps_left=0, noise=0.9)
    wanted = "privacy     epsilon 7.996 of 8 (delta 1e-05), all spent: it trains no more"
    assert wanted in shown(status_report(privacy=over))


def test_the_device_is_shown_as_far_as_it_is_known() -> None:
    assert not any(line.startswith(("GPU", "device")) for line in shown(status_report()))
    gpu = GpuReport("NVIDIA RTX A2000", 0.97, 3_100_000_000, 6_100_000_000, 71.0, 48.04)
    desk = MachineReport((gpu,), 12_300_000_000, 32_000_000_000, 55.2, None)
    lines = shown(replace(status_report(), machine=desk))
    assert "GPU         NVIDIA RTX A2000, 97% busy, 3.1 GB of 6.1 GB in use, 71 °C, 48.0 W" in lines
    assert "device      12.3 GB of 32.0 GB in use, 55 °C" in lines
    bare = MachineReport((), None, None, None, None)
    assert "device      no figures" in shown(replace(status_report(), machine=bare))


def test_losses_are_a_column_only_where_somebody_shares_one() -> None:
    def listed(*known: PeerReport) -> list[list[str]]:
        out = io.StringIO()
        Console(file=out, width=120).print(peer_table(list(known)))
        return [line.split() for line in out.getvalue().splitlines()]

    assert "loss" not in listed(peer_report("a"), peer_report("b"))[0]
    head, one, other = listed(peer_report("a"), peer_report("b", loss=0.4321))
    assert [row[head.index("loss")] for row in (one, other)] == ["-", "0.432"]


def test_who_is_gone_is_named() -> None:
    assert "neighbours  none in reach; gone: desk-b" in shown(status_report(), peer_report(state="gone"))


@pytest.mark.parametrize(
    ("bytes_", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456_789, "123 MB"), (2 * 10**13, "20.0 TB")]
)
def test_sizes(bytes_: int, text: str) -> None:
    assert size(bytes_) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (59.0, "59 s"), (61.0, "1 min 1 s"), (3725.0, "1 h 2 min"), (90_000.0, "1 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers() -> None:
    assert [number(0.12345), number(None), number(float("nan")), number(1.2e-5), number(0.0)] == [
        "0.123",
        "-",
        "-",
        "1.2e-05",
        "0.000",
    ]
    assert [percent(0.987), percent(None)] == ["98.7 %", "-"]
    assert short_id(NODE) == "DCF7-K2QX"
