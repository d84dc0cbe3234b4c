"""``decaf-node simulate``: its options, its figures and what it says; the seeds are played elsewhere, or made up."""

from __future__ import annotations

import io
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from decaf_node.cli.main import main
from decaf_node.cli.simulate.choices import Choices
from decaf_node.cli.simulate.figures import document, figures
from decaf_node.cli.simulate.plot import draw, quantile
from decaf_node.cli.simulate.report import OTHERS, summary, violations
from decaf_node.cli.simulate.view import View
from decaf_node.sim.faults import CHURN, PROFILES, Faults
from decaf_node.sim.plan import Plan
from decaf_node.sim.problem import Measure
from decaf_node.sim.progress import Told
from decaf_node.sim.run import Outcome
from decaf_node.sim.shape import edges
from tests.cli.outcomes import FINDING, outcome

SMALL = ["simulate", "--nodes", "3", "--rounds", "4", "--jobs", "1"]


def lines(*things: Any) -> list[str]:
    out = io.StringIO()
    for thing in things:
        Console(file=out, width=80).print(thing)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--nodes 1", "A mesh of 1"),
        ("--nodes 2 --topology ring", "A ring needs 3 nodes"),
        ("--nodes 2 --topology torus", "A torus needs 3 nodes"),
        ("--topology star", "No topology is called 'star'"),
        ("--payload llm", "No payload is called 'llm'"),
        ("--faults rain", "No faults are called 'rain'"),
        ("--rounds 0", "0 rounds"),
        ("--round-seconds 0.5", "A round of 0.5 s"),
        ("--round-seconds inf", "A round of inf s"),
        ("--spread 0.5", "a factor of 0.5"),
        ("--spread nan", "a factor of nan"),
        ("--loss -0.1", "--loss"),
        ("--loss nan", "--loss"),
        ("--loss 1", "--loss"),
        ("--cuts 1.5", "--cuts"),
        ("--churn -1", "--churn"),
        ("--churn nan", "--churn"),
        ("--churn inf", "--churn"),
        ("--seeds 0", "0 seeds"),
        ("--first-seed -1", "No seed is -1"),
        ("--jobs 0", "--jobs"),
        ("--plot mesh.gif", "let its name end in .png"),
        ("--plot nowhere/mesh.png", "There is no folder"),
    ],
)
def test_what_cannot_be_gets_one_sentence(options: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *options.split()]) == 64
    error = capsys.readouterr().err
    assert said in error
    assert error.endswith("[simulate.impossible]\n")
    assert error.count("\n") == 1


def test_a_folder_is_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mesh.png").mkdir()
    assert main(["simulate", "--plot", str(tmp_path / "mesh.png")]) == 64
    assert "cannot be written" in capsys.readouterr().err


def test_single_rates_override_the_profile() -> None:
    assert Choices(loss=0.2).plan().faults == Faults(loss=0.2)
    storm = Choices(faults="storm", loss=0.0, churn=1.0).plan().faults
    assert (storm.loss, storm.strikes, storm.cuts) == (0.0, 1.0, PROFILES["storm"].cuts)
    assert storm.kinds == PROFILES["storm"].kinds


def test_churn_alone_means_that_nodes_crash_and_leave() -> None:
    assert Choices(churn=2.0).plan().faults.kinds == CHURN
    assert Choices(faults="mild", churn=2.0).plan().faults.kinds == PROFILES["mild"].kinds


def test_a_replay_names_what_was_chosen_and_nothing_else() -> None:
    chosen = Choices(nodes=12, round_seconds=30.0, loss=0.05, seeds=100, first_seed=7, jobs=2, plot=Path("a b.png"))
    assert chosen.replay(42) == (
        "decaf-node simulate --nodes 12 --round-seconds 30.0 --loss 0.05 --seeds 1 --first-seed 42"
    )


def test_a_replay_plays_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--faults", "mild", "--loss", "0.1", "--churn", "5", "--spread", "4"]
    assert main([*SMALL, *chosen, "--first-seed", "9", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    choices = Choices(nodes=3, rounds=4, faults="mild", loss=0.1, churn=5.0, spread=4.0)
    assert main([*shlex.split(choices.replay(9))[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trace"] == first["trace"]


def test_the_figures_are_sums_extremes_and_medians() -> None:
    others = [outcome(seed=1, adoptions=5, wait_longest=30.0), outcome(seed=2, adoptions=10, members_most=7)]
    found = figures(Plan(nodes=2), [outcome(), *others])
    assert (found.edges, found.one_sided, found.unreasoned, found.rounds) == (120, 6, 3, 204)
    assert found.faults == {"break": 6, "kill": 3}
    assert (found.wait_longest_seconds, found.wait_longest_rounds, found.members_most) == (90.0, 1.5, 7)
    assert (found.slowest_rounds_per_hour, found.fastest_rounds_per_hour) == (28.0, 108.0)
    assert (found.fastest_of_alone, found.adoptions) == (0.9, 5)
    assert (found.frames_per_round, found.hellos_per_round) == (5.0, 10.0)
    assert (found.consensus_start, found.consensus_end) == (2.0, 0.5)
    assert math.isnan(found.loss_end)


def test_the_table_fits_into_80_columns() -> None:
    outcomes = [
        outcome(seed=seed, edges=10**9, struck=tuple((f"kind-{n}", 10**6) for n in range(18))) for seed in (0, 1)
    ]
    shown = lines(summary(Choices(seeds=2), figures(Plan(), outcomes), outcomes, 3.0, False))
    assert max(map(len, shown)) <= 80
    assert "seeds         2 (0 to 1)" in shown
    assert not any(line.startswith("loss") for line in shown)


def test_a_loss_is_shown_where_there_is_one() -> None:
    learned = [outcome(curve=((60.0, Measure(2.0, 1.0, 1.0)), (120.0, Measure(0.5, 0.25, 1.0))))]
    shown = lines(summary(Choices(), figures(Plan(), learned), learned, 3.0, False))
    assert "loss          1.000 at the start, 0.250 at the end" in shown


def test_the_first_violation_is_told_whole_and_the_others_in_a_line() -> None:
    failed = [outcome(seed=seed, finding=FINDING) for seed in (3, 5)]
    shown = lines(*violations(Choices(nodes=2, seeds=9), [outcome(), *failed]))
    assert [line for line in shown if line][1:] == [
        *FINDING.transcript,
        "Seed 3: liveness: n0 has not mixed with n1",
        "It is played again by:",
        "  decaf-node simulate --nodes 2 --seeds 1 --first-seed 3",
        "Seed 5: liveness: n0 has not mixed with n1",
    ]


def test_of_many_violations_the_rest_is_counted() -> None:
    failed = [outcome(seed=seed, finding=FINDING) for seed in range(OTHERS + 4)]
    assert lines(*violations(Choices(), failed))[-1] == "3 more seeds failed; --json names them all."


def test_the_document_has_each_violation_with_its_replay() -> None:
    made = document(Choices(seeds=3), Plan(), [outcome(), outcome(seed=1, finding=FINDING)], 2.0, True)
    assert (made["seeds"], made["interrupted"], made["rounds"], made["seconds"]) == (2, True, 136, 2.0)
    [violation] = made["violations"]
    assert violation == {
        "seed": 1,
        "check": "liveness",
        "message": FINDING.message,
        "transcript": FINDING.transcript,
        "replay": "decaf-node simulate --seeds 1 --first-seed 1",
    }


@pytest.mark.parametrize(("finding", "code"), [(None, 0), (FINDING, 70)])
def test_a_violation_is_a_bug(
    finding: Any, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def played(plan: Plan, seeds: Sequence[int], workers: int, told: Told) -> Iterator[Outcome]:
        yield from (outcome(seed=seed, finding=finding) for seed in seeds)

    monkeypatch.setattr("decaf_node.cli.simulate.play.play_here", played)
    assert main(["simulate", "--seeds", "2", "--json"]) == code
    assert [found["seed"] for found in json.loads(capsys.readouterr().out)["violations"]] == ([0, 1] if code else [])


@pytest.mark.parametrize("finished", [0, 2])
def test_after_ctrl_c_what_was_finished_is_told(
    finished: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def played(plan: Plan, seeds: Sequence[int], workers: int, told: Told) -> Iterator[Outcome]:
        yield from (outcome(seed=seed) for seed in seeds[:finished])
        raise KeyboardInterrupt

    monkeypatch.setattr("decaf_node.cli.simulate.play.play_here", played)
    assert main(["simulate", "--seeds", "9", "--plot", str(tmp_path / "mesh.png")]) == 130
    shown = capsys.readouterr().out
    assert "Stopped by Ctrl-C; this was finished:" in shown
    assert f"\nseeds         {finished}" in shown
    assert (tmp_path / "mesh.png").exists() == (finished > 0)
    assert main(["simulate", "--seeds", "9", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["interrupted"] is True


def test_where_nobody_looks_a_line_comes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("decaf_node.cli.simulate.view.time.monotonic", lambda: now[0])
    out = io.StringIO()
    with View(Console(file=out, width=80), seeds=40, length=1800.0) as view:
        for _ in range(25):
            now[0] += 1.0
            view.add(outcome(finding=FINDING))
    assert out.getvalue().splitlines() == [
        "10/40 seeds, 5.0 virtual h, 1,000 steps/s, 10 violations",
        "20/40 seeds, 10.0 virtual h, 1,000 steps/s, 20 violations",
    ]


def test_the_line_moves_within_a_long_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("decaf_node.cli.simulate.view.time.monotonic", lambda: now[0])
    out = io.StringIO()
    with View(Console(file=out, width=80), seeds=1, length=36_000.0) as view:
        for part in (1, 2, 3):
            now[0] += 6.0
            view.told(part * 7200.0, part * 3000)
    assert out.getvalue() == "0/1 seeds, 4.0 virtual h, 500 steps/s, 0 violations\n"


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_picture_is_what_its_ending_says(ending: str, tmp_path: Path) -> None:
    draw(tmp_path / f"mesh.{ending}", Plan(nodes=40, payload="none"), [outcome(), outcome(seed=1)])
    beginning = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert (tmp_path / f"mesh.{ending}").read_bytes().startswith(beginning)


def test_quantiles_lie_between_values_in_proportion() -> None:
    assert [quantile([1.0, 2.0, 4.0], part) for part in (0.0, 0.5, 0.75, 1.0)] == [1.0, 2.0, 3.0, 4.0]
    assert quantile([7.0], 0.9) == 7.0


def test_the_graph_has_each_edge_once() -> None:
    assert edges(Plan(nodes=4, topology="ring")) == [(0, 1), (0, 3), (1, 2), (2, 3)]
    assert len(edges(Plan(nodes=12, topology="full"))) == 66


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*SMALL, "--ray", "auto"]) == 78
    assert "pip install" in capsys.readouterr().err


class FakeRay:
    """As much of Ray as a campaign uses; a task is done when it is asked for."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.running = False

    def init(self, address: str, **_: Any) -> None:
        if address == "auto":
            raise ConnectionError("Could not find any running Ray instance.")
        self.addresses.append(address)
        self.running = True

    def shutdown(self) -> None:
        self.running = False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, function: Callable[..., Outcome]) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *arguments: partial(function, *arguments))

    def get(self, task: Callable[[], Outcome]) -> Outcome:
        return task()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def test_on_ray_the_same_is_played(ray: FakeRay, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--seeds", "3", "--json"]) == 0
    here = json.loads(capsys.readouterr().out)
    assert main([*SMALL, "--seeds", "3", "--json", "--ray", "local"]) == 0
    assert json.loads(capsys.readouterr().out)["trace"] == here["trace"]
    assert (ray.addresses, ray.running) == (["local"], False)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1", "127.0.0.1", "127.0.0.1:99999"])
def test_a_cluster_that_is_not_there(address: str, ray: FakeRay, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--ray", address]) == 75
    assert "[simulate.no-cluster]" in capsys.readouterr().err
    assert ray.addresses == []
