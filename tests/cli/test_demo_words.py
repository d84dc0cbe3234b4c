"""The demo's table, final words and picture, from nodes that were watched."""

from __future__ import annotations

import io
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from decaf_node.cli.demo.articles import Article
from decaf_node.cli.demo.baselines import Baselines
from decaf_node.cli.demo.mesh import Node
from decaf_node.cli.demo.newsrooms import Layout, lay_out
from decaf_node.cli.demo.plot import draw
from decaf_node.cli.demo.recipe import language_model
from decaf_node.cli.demo.report import Answers, conclusion, introduction, whereabouts
from decaf_node.cli.demo.results import gather
from decaf_node.cli.demo.shares import Deal, deal
from decaf_node.cli.demo.sight import Point, Sight
from decaf_node.cli.demo.view import View, node_table
from tests.cli.reports import peer_report, round_report, status_report

ROUNDS = 3
TOPICS = ("business", "entertainment", "politics", "sports", "technology")


def printed(*things: RenderableType) -> str:
    """Return what an 80-column terminal without colours shows."""
    out = io.StringIO()
    console = Console(file=out, width=80, highlight=False)
    for thing in things:
        console.print(thing)
    return out.getvalue()


@pytest.fixture
def dealt() -> Deal:
    return deal([Article(f"{t} {n}", t) for t in TOPICS for n in range(100)], 4, 20, 50, False, 0)


@pytest.fixture
def layout(dealt: Deal, tmp_path: Path) -> Layout:
    return lay_out(language_model(tmp_path, iid=False), dealt, ROUNDS, 0, tmp_path)


@pytest.fixture
def nodes(layout: Layout) -> list[Node]:
    """Three nodes that are done at .9, and one that was killed after its second round."""
    watched = []
    for room in layout.newsrooms:
        ended = subprocess.Popen(["true"], text=True)
        ended.wait()
        node = Node(room, ROUNDS, ended, standing="here")
        for number in (2, 3):
            rounds = tuple(round_report(n, 0.3 * n) for n in range(1, number + 1))
            node.record.add(Sight("here", status_report(number), (peer_report(),), rounds))
        watched.append(node)
        ahead = (round_report(3, 0.9), round_report(4, None))
        node.record.add(Sight("here", status_report(4, "done"), (peer_report(),), ahead))
    killed = watched[3].record
    killed.status, killed.points = status_report(3), {n: Point(n, 0.3 * n) for n in (1, 2)}
    watched[3].standing = "gone"
    return watched


@pytest.fixture
def baselines(layout: Layout) -> Baselines:
    trained = Baselines(layout)
    for curve in trained.alone.values():
        curve += [Point(1, 0.2), Point(3, 0.4)]
    trained.one_place.append(Point(3, 0.95))
    return trained


def test_the_table_fits_80_columns(nodes: list[Node]) -> None:
    for node in nodes:
        node.record.end_where_measured()
    lines = printed(node_table(nodes, ROUNDS)).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[0].split() == ["node", "is", "round", "loss", "accuracy", "peers", "distance", "sent"]
    assert lines[1].split() == ["newsroom-1", "done", "3/3", "0.333", "90.0", "%", "1", "0.250", "1.2", "MB"]
    assert lines[4].split()[:3] == ["newsroom-4", "gone", "2/3"]


def test_a_node_is_done_when_its_rounds_are_measured(nodes: list[Node]) -> None:
    assert [node.done for node in nodes] == [True, True, True, False]
    assert nodes[0].record.round == 4
    nodes[0].record.end_where_measured()
    assert (nodes[0].record.round, nodes[0].record.accuracy) == (3, 0.9)
    nodes[0].record.points.pop(3)
    assert not nodes[0].done


def test_bytes_of_an_earlier_life_count(nodes: list[Node]) -> None:
    nodes[0].record.add(Sight("here", status_report(4, instance="2", sent_bytes=800_000)))
    assert nodes[0].record.sent_bytes == 2_000_000


def test_a_node_that_is_gone_is_said_with_the_command_that_brings_it_back(nodes: list[Node]) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, no_color=True, legacy_windows=False)
    with View(console, ROUNDS) as view:
        view.nodes(nodes)
    assert "newsroom-4 is gone" in out.getvalue()
    command = nodes[3].restart_command()
    places = nodes[3].newsroom.places
    assert f"run --config {places.config} --state {places.state} --runtime {places.runtime}" in command


def test_without_a_terminal_a_line_now_and_then(nodes: list[Node]) -> None:
    out = io.StringIO()
    with View(Console(file=out, width=500), ROUNDS) as view:
        view.nodes(nodes)
        view.nodes(nodes)
    lines = out.getvalue().splitlines()
    nodes[3].newsroom.log.write_text("10:00 info Round 2\ndecaf-node: The disk is full. [disk.full]\n")
    assert nodes[3].why == " (The disk is full)"
    assert "newsroom-1 done 4 (90.0 %)" in lines[0]
    assert lines[1].startswith("newsroom-4 is gone")
    assert lines[2] == f"  {nodes[3].restart_command()}"
    assert len(lines) == 3


def test_a_node_that_never_got_going_is_not_to_be_started_again(nodes: list[Node]) -> None:
    failed = nodes[3]
    failed.record.points, failed.process.returncode = {}, 65
    out = io.StringIO()
    with View(Console(file=out, width=500), ROUNDS) as view:
        view.nodes(nodes)
    assert "newsroom-4 gone 0" in out.getvalue()
    assert "Start it again" not in out.getvalue()
    failed.process.returncode = -9  # killed
    with View(Console(file=out, width=500), ROUNDS) as view:
        view.nodes(nodes)
    assert "Start it again" in out.getvalue()


def test_means_are_over_the_nodes_that_stayed(nodes: list[Node], baselines: Baselines, dealt: Deal) -> None:
    results = gather(nodes, baselines, ROUNDS, dealt, own_rate=True)
    assert results.mesh == pytest.approx(0.9)
    assert results.alone == pytest.approx(0.4)
    assert results.centralized == pytest.approx(0.95)
    assert results.alone_bound == pytest.approx(0.4)
    document = json.loads(json.dumps(results.document()))
    assert [node["gone"] for node in document["nodes"]] == [False, False, False, True]
    assert document["nodes"][3]["round"] == 2
    assert document["bytes"] == 4 * 1_200_000


def test_the_words_say_what_the_numbers_mean(nodes: list[Node], baselines: Baselines, dealt: Deal) -> None:
    results = gather(nodes, baselines, ROUNDS, dealt, own_rate=True)
    text = printed(conclusion(results, Answers("Which topic?", "sports", "I think", "sports"), 100.0))
    flat = " ".join(text.split())
    assert "newsroom-4 sports, technology 40.0 % gone after round 2" in flat
    assert "mean 40.0 % 90.0 %" in flat
    assert "one place all articles 95.0 %" in flat
    assert "cannot do better than about 40 %" in flat
    assert "over the newsrooms that stayed" in flat
    assert "after: sports (right: sports)" in flat
    assert "all have the same model" in flat
    assert "one has had 4" in flat
    assert "a learning rate that suits it" in flat
    everyone = replace(results, nodes=results.nodes[:3])
    assert "over the newsrooms that stayed" not in " ".join(printed(conclusion(everyone, None, 1.0)).split())


def test_progress_of_the_baselines_counts_one_place_as_much_as_the_others(baselines: Baselines) -> None:
    assert baselines.done == 1.0
    baselines.one_place.clear()
    assert baselines.done == 0.5


def test_introduction_and_whereabouts_fit_80_columns(layout: Layout, dealt: Deal) -> None:
    text = printed(
        introduction(layout.newsrooms, len(dealt.test)), whereabouts(Path("decaf-demo/1"), "newsroom-1", Path("minilm"))
    )
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "newsroom-1  10 business, 10 entertainment" in text
    assert "decaf-demo/1/adapter" in text


@pytest.mark.slow
def test_the_picture_is_a_png(nodes: list[Node], baselines: Baselines, tmp_path: Path) -> None:
    draw(tmp_path / "curves.png", nodes, baselines)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
