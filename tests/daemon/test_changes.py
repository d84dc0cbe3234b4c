"""What is worth telling to those who watch."""

from __future__ import annotations

from dataclasses import replace

from decaf_node.daemon.changes import Changes
from decaf_node.daemon.reports import AlertReport, PhaseReport, ProblemReport
from decaf_node.mesh.view import NodeView, PeerView

PEER = PeerView("B", "b", "alive", (), True, 3, 0.5, None, None, None, None, None, 0, "")
VIEW = NodeView("training", 3, 0, 1, (), 2, (PEER,))


def test_what_is_there_at_first_is_told_and_then_only_what_changes() -> None:
    changes = Changes()
    assert list(changes.look(VIEW, [])) == [PhaseReport("training", 3), PEER]
    assert list(changes.look(VIEW, [])) == []
    assert list(changes.look(replace(VIEW, phase="mixing"), [])) == [PhaseReport("mixing", 3)]


def test_a_member_is_told_when_it_comes_goes_or_is_mixed_but_not_for_each_sign_of_life() -> None:
    changes = Changes()
    list(changes.look(VIEW, []))
    heard = replace(PEER, round=4, heard=0.1)
    assert list(changes.look(replace(VIEW, peers=(heard,)), [])) == []
    for changed in (
        replace(heard, state="late"),
        replace(heard, state="gone", neighbour=False),
        PEER,
        replace(PEER, mixes=1, weight=0.5),
        replace(PEER, mixes=1, weight=0.5, clip_factor=0.2),
    ):
        assert list(changes.look(replace(VIEW, peers=(changed,)), [])) == [changed]


def alert(place: str, sentence: str, remedy: str = "") -> AlertReport:
    return AlertReport("disk.full", "critical", place, 0.0, sentence, remedy)


def test_a_problem_is_told_when_it_begins_changes_and_is_over() -> None:
    changes = Changes()
    list(changes.look(VIEW, []))
    full = alert("disk", "Full: 3 MB left.", "Make room.")
    assert list(changes.look(VIEW, [full])) == [ProblemReport("disk", "Full: 3 MB left. Make room.", full)]
    assert list(changes.look(VIEW, [alert("disk", "Full: 2 MB left.", "Make room.")])) == []
    worse = replace(full, severity="warning")
    assert list(changes.look(VIEW, [worse])) == [ProblemReport("disk", "Full: 3 MB left. Make room.", worse)]
    both = [alert("disk", "It cannot be read."), alert("trainer", "It died.")]
    assert list(changes.look(VIEW, both)) == [ProblemReport(each.place, each.sentence, each) for each in both]
    assert list(changes.look(VIEW, both[1:])) == [ProblemReport("disk", "")]
