"""The list of what is wrong: what makes an alert, since when, and how bad it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from decaf_node.daemon import alerts as module
from decaf_node.daemon.alerts import (
    CLIPPED_SECONDS,
    LOST_SECONDS,
    RESTARTS_SECONDS,
    ROUNDS_WITHOUT_MIX,
    WITHOUT_MIX_SECONDS,
    Alerts,
)
from decaf_node.daemon.disk_room import Disk
from decaf_node.daemon.host import Host, Me
from decaf_node.daemon.problems import Problem
from decaf_node.daemon.spool import Spool
from decaf_node.daemon.store import open_store
from decaf_node.daemon.tasks import Tasks
from decaf_node.mesh.events import Event
from decaf_node.mesh.view import NodeView, PeerView

DESK = "B" * 52
PEER = PeerView(DESK, "desk", "alive", (), True, 3, 0.5, 0.5, 0.1, None, None, 1.0, 4, "")
VIEW = NodeView("training", 3, 4, 1, (), 2, (PEER,))
ALONE = replace(VIEW, peers=())


class Watched:
    """Alerts whose time and trainer a test moves on."""

    def __init__(self, host: Host, exchanges: bool = True) -> None:
        self.now = 1000.0
        self.restarts = 0
        self.host = host
        self.alerts = Alerts(host, lambda: self.restarts, exchanges, lambda: self.now, lambda: self.now + 1e9)

    def ids(self, view: NodeView = VIEW) -> list[str]:
        return [alert.id for alert in self.alerts.look(view)]

    def after(self, seconds: float, view: NodeView = VIEW) -> list[str]:
        self.now += seconds
        return self.ids(view)


async def nowhere(event: Event, fresh: object = None) -> None:
    """Nobody listens."""


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    store = open_store(tmp_path / "state", "lab")
    spool = Spool(tmp_path / "spool", 10**6)
    host = Host(Me("A" * 52, "orin", "lab"), store, spool, nowhere, lambda _: "desk", 1024, Tasks(), 1)
    yield host
    host.close()
    store.close()


def test_what_the_parts_say_is_listed_with_its_remedy_the_worst_first(host: Host) -> None:
    watched = Watched(host)
    assert watched.ids() == []
    host.problems.set("enrolment", Problem("listen.port-in-use", "The port is taken.", "Take another."))
    assert watched.ids() == ["listen.port-in-use"]
    watched.now += 60
    host.problems.set("disk", Problem("disk.full", "The disk is full.", "Make room.", critical=True))
    assert watched.ids() == ["disk.full", "listen.port-in-use"]
    watched.now += 60
    first, second = watched.alerts.look(VIEW)
    assert (first.severity, first.place, first.since, first.words) == (
        *("critical", "disk", 1e9 + 1060, "The disk is full. Make room."),
    )
    assert (second.severity, second.since, second.remedy) == ("warning", 1e9 + 1000, "Take another.")
    host.problems.clear("disk")
    assert watched.ids() == ["listen.port-in-use"]
    host.problems.set("disk", Problem("disk.full", "The disk is full.", "Make room.", critical=True))
    assert watched.alerts.look(VIEW)[0].since == 1e9 + 1120  # it has begun anew


def test_who_sees_nobody_is_alone_after_a_while(host: Host) -> None:
    watched = Watched(host)
    assert watched.after(59, ALONE) == []
    assert watched.after(2, ALONE) == ["mesh.alone"]
    assert watched.after(1) == []
    assert watched.after(59, ALONE) == []


def test_rounds_without_a_mix_are_counted(host: Host) -> None:
    watched = Watched(host)
    assert watched.ids() == []
    last = replace(VIEW, round=VIEW.round + ROUNDS_WITHOUT_MIX)
    assert watched.after(WITHOUT_MIX_SECONDS - 1, last) == []
    assert watched.after(1, replace(last, round=last.round - 1)) == []
    assert watched.ids(last) == ["mesh.no-mix"]
    assert watched.ids(replace(last, peers=())) == []  # nobody is there to mix with: that is said otherwise
    assert watched.ids(replace(last, mixes=5)) == []
    by_itself = Watched(host, exchanges=False)
    assert by_itself.ids() == []
    assert by_itself.after(WITHOUT_MIX_SECONDS, last) == []


def test_a_neighbour_that_has_gone_without_goodbye_is_missed_for_an_hour(host: Host) -> None:
    watched = Watched(host)
    gone = replace(PEER, state="gone", neighbour=False, heard=300.0)
    other = replace(PEER, peer="C" * 52)
    assert watched.ids(replace(VIEW, peers=(gone, other))) == ["neighbour.lost"]
    for well in (replace(gone, left=True), replace(gone, mixes=0), replace(gone, heard=LOST_SECONDS)):
        assert watched.ids(replace(VIEW, peers=(well, other))) == []
    (alert,) = watched.alerts.look(replace(VIEW, peers=(gone, other)))
    assert (alert.place, alert.sentence) == (DESK, "desk (BBBB-BBBB) is gone: it was last heard 5 min ago.")


def test_a_neighbour_that_is_clipped_for_long_is_told(host: Host) -> None:
    watched = Watched(host)
    clipped = replace(VIEW, peers=(replace(PEER, clip_factor=0.5),))
    assert watched.ids(clipped) == []
    assert watched.after(CLIPPED_SECONDS - 1, clipped) == []
    assert watched.after(0) == []
    assert watched.after(2, clipped) == []
    assert watched.after(CLIPPED_SECONDS, clipped) == ["neighbour.clipped"]


def test_why_there_is_no_edge_is_told_with_what_to_do(host: Host) -> None:
    paused = replace(PEER, problem="This node is paused; it mixes again after decaf-node resume.")
    (alert,) = Watched(host).alerts.look(replace(VIEW, peers=(paused,)))
    assert (alert.id, alert.sentence, alert.remedy) == (
        *("neighbour.no-edge", "desk (BBBB-BBBB): This node is paused.", "It mixes again after decaf-node resume."),
    )


def test_a_trainer_that_keeps_ending_is_told_and_one_that_is_lost_first(host: Host) -> None:
    watched = Watched(host)
    watched.restarts = 2
    assert watched.ids() == []
    watched.restarts = 3
    assert watched.after(10) == ["trainer.restarting"]
    host.problems.set("trainer", Problem("trainer.lost", "There is no trainer.", critical=True))
    assert watched.ids() == ["trainer.lost"]
    host.problems.clear("trainer")
    assert watched.after(RESTARTS_SECONDS) == []


@pytest.mark.parametrize(
    ("disk", "ids"),
    [
        (Disk(100 * 10**9, 4 * 10**9), ["disk.nearly-full"]),
        (Disk(100 * 10**9, 6 * 10**9), []),
        (Disk(4000 * 10**9, 100 * 10**9), []),  # a fortieth, and yet room for long
        (None, []),
    ],
)
async def test_a_disk_that_is_nearly_full_is_told(
    host: Host, disk: Disk | None, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "disk_of", lambda _: disk)  # no test can fill a disk of this size
    watched = Watched(host)
    await watched.alerts.look_at_disk()
    assert watched.ids() == ids
