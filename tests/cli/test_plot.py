"""``decaf-node plot``: the history thinned, drawn and read with and without a daemon; sentences where it cannot be."""

from __future__ import annotations

import json
import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from decaf_node.cli.plot.curves import draw_history
from decaf_node.cli.plot.graph import draw_graph
from decaf_node.cli.plot.thinning import MOST, VALUES, Thinned
from decaf_node.daemon.reports import LinkReport, MemberReport, TopologyReport
from decaf_node.daemon.store import open_store
from tests.cli.command import decaf_node
from tests.cli.reports import round_report
from tests.daemon.processes import mesh

BEGINNINGS = {".png": b"\x89PNG\r\n", ".pdf": b"%PDF-", ".svg": b"<?xml"}


def thinned(*numbers: int) -> Thinned:
    history = Thinned()
    for number in numbers:
        history.add(round_report(number))
    return history


def texts(path: Path) -> str:
    """All words of an SVG file; matplotlib keeps them as comments beside the outlines."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    return "\n".join(str(element.text) for element in ElementTree.parse(path, parser).iter())


def test_a_short_history_keeps_every_round() -> None:
    history = thinned(3, 1, 2)
    assert (history.each, history.count) == (1, 3)
    assert [(round, group.mean) for round, group in history.curve("loss")] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_a_long_history_keeps_means_and_extremes_in_bounded_memory() -> None:
    numbers = list(range(1, 10 * MOST))
    random.Random(0).shuffle(numbers)
    history = thinned(*numbers)
    assert history.each == 16
    assert all(len(history.groups[name]) <= MOST for name in VALUES)
    middle, group = history.curve("loss")[1]
    losses = [1.0 / number for number in range(16, 32)]
    assert (middle, group.count, group.low, group.high) == (23.5, 16, min(losses), max(losses))
    assert group.mean == pytest.approx(sum(losses) / 16)
    assert sum(group.count for _, group in history.curve("sent_bytes")) == history.count == len(numbers)
    assert history.first is not None
    assert history.last is not None
    assert (history.first.round, history.last.round) == (1, max(numbers))


def test_what_is_unknown_or_no_number_is_left_out() -> None:
    history = Thinned()
    history.add(replace(round_report(1, None), steps=0, consensus_distance=float("nan")))
    assert [name for name in VALUES if history.groups[name]] == ["sent_bytes", "received_bytes"]


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_each_kind_of_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"rounds{kind}"
    draw_history(path, r"机器 $\frac$ in mesh lab", thinned(*range(1, 60)))
    assert path.read_bytes().startswith(BEGINNINGS[kind])


def test_the_panels_are_those_that_there_is_something_for(tmp_path: Path) -> None:
    path = tmp_path / "rounds.svg"
    draw_history(path, "a", thinned(1, 2))
    whole = texts(path)
    assert all(
        word in whole for word in ("loss", "held-out accuracy", "distance", "snapshots a round", "rounds 1 to 2")
    )
    history = Thinned()
    history.add(replace(round_report(1, None), consensus_distance=None))
    draw_history(path, "a", history)
    part = texts(path)
    assert "snapshots a round" in part
    assert "accuracy" not in part
    assert "distance" not in part


def test_of_a_single_round_the_axis_says_its_number_once(tmp_path: Path) -> None:
    history = Thinned()
    history.add(replace(round_report(7, None), steps=0, consensus_distance=None))  # nothing but bytes
    draw_history(tmp_path / "rounds.svg", "a", history)
    assert texts(tmp_path / "rounds.svg").split("\n").count(" 7 ") == 1


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("rounds.gif", "let its name end in .png"),
        ("no/rounds.png", "There is no folder"),
        ("d.png", "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_said_at_once(file: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "d.png").mkdir()
    done = decaf_node("plot", tmp_path / file, "--runtime", tmp_path)
    assert (done.returncode, done.stdout) == (64, "")
    assert sentence in done.stderr
    assert done.stderr.endswith("[plot.bad-file]\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_where_the_disk_refuses_it_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "rounds.png"
    path.symlink_to("/dev/full")
    with closing(open_store(tmp_path / "state", "lab")) as store:
        store.record_round(round_report(1))
    done = decaf_node("plot", path, "--runtime", tmp_path, "--state", tmp_path / "state")
    assert done.returncode == 75
    assert "No space left on device. [plot.not-written]" in done.stderr


def test_without_a_daemon_and_without_rounds(tmp_path: Path) -> None:
    places = ("--runtime", tmp_path, "--state", tmp_path / "state")
    assert decaf_node("plot", tmp_path / "rounds.png", *places).returncode == 69
    open_store(tmp_path / "state", "lab").close()
    done = decaf_node("plot", tmp_path / "rounds.png", *places)
    assert done.returncode == 75
    assert "has not finished a round yet" in done.stderr
    assert not (tmp_path / "rounds.png").exists()


@pytest.mark.slow
def test_from_a_daemon_and_from_what_a_killed_one_has_left(tmp_path: Path) -> None:
    with mesh() as make:
        a = make("a", script={"seconds": 0.01}, round={"steps": 1}).start()
        a.until(lambda status: status.saved_round >= 5)
        places = ("--runtime", a.runtime, "--state", a.state)
        drawn = decaf_node("plot", tmp_path / "rounds.svg", *places)
        assert drawn.returncode == 0, drawn.stderr
        assert "a in mesh lab: rounds 1 to " in texts(tmp_path / "rounds.svg")
        locked = decaf_node("plot", tmp_path / "rounds.svg", "--runtime", tmp_path, "--state", a.state)
        assert (locked.returncode, "[state.locked]" in locked.stderr) == (75, True)
        a.end()
        left = decaf_node("plot", tmp_path / "rounds.svg", *places, "--json")
        assert json.loads(left.stdout)["rounds"] >= 5
        assert "in mesh lab: rounds 1 to " in texts(tmp_path / "rounds.svg")
        assert a.start().until(lambda status: status.round > 5).problem == ""


def topology(members: int) -> TopologyReport:
    """A ring as its first node sees it; the second node is gone."""
    nodes = [f"{chr(65 + number % 26)}{number:051}" for number in range(members)]
    pairs = [sorted((nodes[number], nodes[(number + 1) % members])) for number in range(members)]
    return TopologyReport(
        graph="ring",
        topology="auto",
        node=nodes[0],
        members=tuple(
            MemberReport(node, f"desk-{place}", "gone" if place == 1 else "alive", 4, 2)
            for place, node in enumerate(nodes)
        ),
        links=tuple(LinkReport(pair[0], pair[1], 0.25 if nodes[0] in pair else None, True) for pair in pairs),
        link_count=members,
        turns=1,
    )


def test_the_graph_has_names_states_and_the_weights_of_our_links(tmp_path: Path) -> None:
    path = tmp_path / "mesh.svg"
    draw_graph(path, "lab", topology(5))
    words = texts(path).split("\n")
    assert "mesh lab: ring (auto), 5 members, 5 links" in texts(path)
    assert [f"desk-{place}" in texts(path) for place in range(6)] == [True] * 5 + [False]
    assert sum(word.strip() == "0.25" for word in words) == 2
    assert {"alive", "gone", "this node"} <= {word.strip() for word in words}
    draw_graph(path, "lab", topology(200))
    assert "desk-" not in texts(path)


def test_a_node_alone_is_a_graph_too(tmp_path: Path) -> None:
    path = tmp_path / "mesh.svg"
    draw_graph(path, "lab", replace(topology(2), links=(), link_count=0, members=topology(2).members[:1]))
    assert "1 member, 0 links" in texts(path)


@pytest.mark.slow
def test_the_graph_of_real_daemons(tmp_path: Path) -> None:
    with mesh() as make:
        a = make("a").start()
        b = make("b", a).start()
        b.until(lambda status: status.mixes >= 1)
        a.until(lambda status: status.mixes >= 1)
        done = decaf_node("plot", tmp_path / "mesh.svg", "--graph", "--runtime", a.runtime, "--json")
        assert json.loads(done.stdout) == {"file": str(tmp_path / "mesh.svg"), "members": 2, "links": 1}
        assert {"a", "b", "this node"} <= {word.strip() for word in texts(tmp_path / "mesh.svg").split("\n")}
        a.end()
        gone = decaf_node("plot", tmp_path / "mesh.svg", "--graph", "--runtime", a.runtime, "--state", a.state)
        assert (gone.returncode, "[daemon.not-running]" in gone.stderr) == (69, True)
