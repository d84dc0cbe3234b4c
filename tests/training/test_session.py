"""The protocol of a round, against a link that is written down: no model, no Trainer, no clock but ours."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from decaf_node.errors import BadData, Bug, TryAgain
from decaf_node.link import (
    AdoptState,
    EndRound,
    Evaluate,
    Evaluated,
    EvaluatedNow,
    File,
    FromTrainer,
    InspectSnapshot,
    Message,
    MixEdge,
    MixRound,
    Pause,
    PrivacySpent,
    Progress,
    Resume,
    RoundMixed,
    RoundTrained,
    SaveFailed,
    SaveState,
    SnapshotInspected,
    StartTraining,
    StateAdopted,
    StateSaved,
    Stop,
    TrainerReady,
)
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.codec import read_snapshot
from decaf_node.lowrank.product import Product
from decaf_node.snapshot import digest_of, read_header
from decaf_node.training.evaluate import Evaluation
from decaf_node.training.exchange import Exchange, Identity
from decaf_node.training.link import DaemonGone
from decaf_node.training.live import LiveAdapter, LiveLayer
from decaf_node.training.session import Session
from decaf_node.training.spool import fetch, publish
from tests.training.tiny import causal_settings

Kind = TypeVar("Kind")
READY = TrainerReady("schema", "base", 2, 10, "cpu", {})
HERE = Path(".")


class ScriptedLink:
    """Hands out what the test has written down; when that is over, the daemon is gone."""

    def __init__(self, *messages: Message) -> None:
        self.waiting: deque[Message] = deque(messages)
        self.polled: deque[Message] = deque()
        self.sent: list[FromTrainer] = []

    def send(self, message: FromTrainer) -> None:
        self.sent.append(message)

    def poll(self) -> Message | None:
        return self.polled.popleft() if self.polled else None

    def wait(self) -> Message:
        if not self.waiting:
            raise DaemonGone
        return self.waiting.popleft()

    def wait_for(self, seconds: float) -> Message | None:
        """Let the time pass, unless something has come."""
        if (message := self.poll()) is None:
            self.passed(seconds)
        return message

    def passed(self, seconds: float) -> None:
        """Called with how long was waited in vain."""
        raise AssertionError("nobody waits here for a while")

    def close(self) -> None:
        return

    def last(self, kind: type[Kind]) -> Kind:
        return [message for message in self.sent if isinstance(message, kind)][-1]

    def kinds(self) -> list[str]:
        return [type(message).__name__ for message in self.sent]


class ScriptedHost:
    """A Trainer of which nothing is asked but this."""

    def __init__(self) -> None:
        self.restored: list[tuple[File, File | None]] = []
        self.full = False
        self.held_out = True
        self.own_labels: tuple[float, ...] = ()
        self.weighed: list[Sequence[float]] = []

    def weigh_labels(self, mesh: Sequence[float]) -> None:
        self.weighed.append(mesh)

    def restore(self, snapshot: File, trainer: File | None) -> None:
        self.restored.append((snapshot, trainer))

    def save(self, folder: Path, round: int) -> tuple[File, File, Path]:
        if self.full:
            raise TryAgain("training.disk-full", "There is no room left.")
        return File("a", "1", 1), File("t", "2", 2), folder / "export"

    def evaluate(self, between: Callable[[], None]) -> Evaluation | None:
        between()
        return Evaluation(0.5, 0.75, 8, 0.1) if self.held_out else None


class ScriptedBudget:
    """A budget of so many steps."""

    def __init__(self, left: int) -> None:
        self.left = left

    @property
    def is_spent(self) -> bool:
        return self.left == 0

    def report(self) -> PrivacySpent:
        return PrivacySpent(8.0, 1e-5, 1.0, 10 - self.left, self.left, 1.0)


class Stage:
    """A session on one small live adapter."""

    def __init__(
        self, spool: Path, *messages: Message, budget: ScriptedBudget | None = None, **sections: dict[str, Any]
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.layer = LiveLayer(
            a=nn.Parameter(torch.randn(2, 5, generator=generator)),
            b=nn.Parameter(torch.randn(4, 2, generator=generator)),
            scale=2.0,
        )
        self.head = nn.Parameter(torch.randn(3, generator=generator))
        self.live = LiveAdapter({"layer": self.layer}, {"head": self.head})
        self.spool = spool
        self.link = ScriptedLink(*messages)
        self.host = ScriptedHost()
        self.now = 0.0
        self.losses: list[float] = []
        settings = causal_settings(HERE, HERE, **sections)
        self.session = Session(
            self.link,
            settings.round,
            Exchange(self.live, spool, settings, Identity("schema", "base")),
            self.host,
            clock=lambda: self.now,
            budget=budget,
        )
        self.budget = budget

    def begin(self) -> Stage:
        self.session.begin(READY)
        return self

    def step(self, loss: float = 1.0, seconds: float = 0.25) -> None:
        """One optimizer step, as the callback tells of it: the loss is the mean since it was last wanted."""
        if self.budget is not None:
            assert self.budget.left > 0, "a step beyond the budget"
            self.budget.left -= 1
        self.now += seconds
        self.losses.append(loss)
        if self.session.step_done():
            losses, self.losses = self.losses, []
            self.session.loss_known(sum(losses) / len(losses), len(losses))

    def dense(self) -> torch.Tensor:
        return Product(self.layer.b.detach(), self.layer.a.detach(), self.layer.scale).dense()

    def theirs(self, seed: int, rank: int = 2, head: float = 1.0, round: int = 1) -> tuple[File, torch.Tensor]:
        """A neighbour's snapshot in the spool, and its dense product."""
        generator = torch.Generator().manual_seed(seed)
        product = Product(torch.randn(4, rank, generator=generator), torch.randn(rank, 5, generator=generator), 0.5)
        return self.written(product, head, round), product.dense().float()

    def written(self, product: Product, head: float = 1.0, round: int = 1) -> File:
        """A snapshot of this in the spool."""
        adapter = Adapter({"layer": product}, {"head": torch.full((3,), head)})
        return publish(self.spool, adapter, wire="float32", schema="schema", base="base", round=round)


def steps(count: int, **more: Any) -> dict[str, Any]:
    return {"steps": count, **more}


def best_rank(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    best: torch.Tensor = u[:, :rank] * s[:rank] @ v[:rank]
    return best.float()


def test_what_labels_weigh_is_told_and_heard(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(1))
    stage.host.own_labels = (0.25, 0.75)
    stage.begin()
    stage.link.waiting.append(MixRound(1, (), (0.5, 0.5)))
    stage.step()
    assert stage.link.last(RoundTrained).label_parts == (0.25, 0.75)
    stage.link.waiting.append(MixRound(2))  # nothing is known
    stage.step()
    assert stage.host.weighed == [(0.5, 0.5)]


def test_a_round_is_published_and_the_trainer_waits_for_its_mix(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(4), round=steps(2)).begin()
    stage.link.waiting.append(MixRound(4))
    stage.step(3.0)
    assert stage.link.kinds() == ["TrainerReady"]
    stage.step(1.0)
    assert stage.link.kinds() == ["TrainerReady", "RoundTrained", "RoundMixed", "Evaluated"]
    trained = stage.link.last(RoundTrained)
    assert (trained.round, trained.steps, trained.loss, trained.seconds, trained.rank) == (4, 2, 2.0, 0.5, 2)
    header = read_header(Path(trained.snapshot.path))
    assert (header.round, header.schema, header.base, header.scales) == (4, "schema", "base", {"layer": 2.0})
    assert Path(trained.snapshot.path) == tmp_path / f"{digest_of(Path(trained.snapshot.path))}.safetensors"
    assert stage.link.last(Evaluated) == Evaluated(4, 0.5, 0.75, 8, 0.1)
    assert not stage.session.stopped
    stage.link.waiting.append(MixRound(5))
    stage.step()
    stage.step()
    assert stage.link.last(RoundTrained).round == 5


def test_a_round_by_seconds_counts_only_training(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round={"steps": 0, "seconds": 1.0}).begin()

    class SlowMix(deque[Message]):
        def popleft(self) -> Message:
            stage.now += 100.0
            return super().popleft()

    stage.link.waiting = SlowMix([MixRound(1), MixRound(2)])
    for _ in range(8):
        stage.step(seconds=0.25)
    trained = [message for message in stage.link.sent if isinstance(message, RoundTrained)]
    assert [(round.steps, round.seconds) for round in trained] == [(4, 1.0), (4, 1.0)]


def test_with_overlap_training_goes_on_and_the_next_round_waits_for_the_mix(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(2, overlap=True)).begin()
    for _ in range(5):
        stage.step()
    assert stage.link.kinds().count("RoundTrained") == 1
    stage.link.polled.append(MixRound(1))
    stage.step()
    assert stage.link.kinds()[-3:] == ["RoundMixed", "Evaluated", "RoundTrained"]
    assert (stage.link.last(RoundTrained).round, stage.link.last(RoundTrained).steps) == (2, 4)


def test_an_early_mix_does_not_end_the_next_round_early(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(3, overlap=True)).begin()
    for _ in range(3):
        stage.step()
    stage.link.polled.append(MixRound(1))
    stage.step()
    stage.step()
    assert stage.link.kinds().count("RoundTrained") == 1
    stage.step()
    assert stage.link.last(RoundTrained).steps == 3


def test_the_mix_is_the_best_product_of_the_weighted_sum(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(1)).begin()
    (one, dense_one), (two, dense_two) = stage.theirs(1), stage.theirs(2, rank=3, head=2.0)
    before, head = stage.dense(), stage.head.detach().clone()

    class MixWhenPublished(deque[Message]):
        def popleft(self) -> Message:
            own = stage.link.last(RoundTrained).snapshot
            return MixRound(1, (MixEdge("x", 0.25, own, one), MixEdge("y", 0.5, own, two)))

    stage.link.waiting = MixWhenPublished([Stop()])
    stage.step()
    expected = best_rank(0.25 * before + 0.25 * dense_one + 0.5 * best_rank(dense_two, 2), 2)
    assert torch.allclose(stage.dense(), expected, atol=1e-5)
    assert torch.allclose(stage.head, 0.25 * head + 0.25 * 1.0 + 0.5 * 2.0)
    mixed = stage.link.last(RoundMixed)
    assert (mixed.round, mixed.edges) == (1, 2)
    assert mixed.norm == pytest.approx(stage.dense().norm().item(), rel=1e-5)
    assert mixed.tail > 0


@pytest.mark.parametrize("wire", ["bfloat16", "int8", "compact"])
def test_with_overlap_the_mix_is_a_correction_of_what_was_trained_since(tmp_path: Path, wire: str) -> None:
    """And so it is when a lossy wire carried our own snapshot: what was sent is what counts."""
    stage = Stage(tmp_path, StartTraining(1), round=steps(1, overlap=True), mixing={"wire": wire}).begin()
    stage.step()
    own = stage.link.last(RoundTrained).snapshot
    sent = read_snapshot(Path(own.path))[1]
    theirs, dense = stage.theirs(1)
    with torch.no_grad():  # trained on
        stage.layer.b.add_(0.1)
        stage.head.add_(0.1)
    now, head = stage.dense(), stage.head.detach().clone()
    stage.link.polled.append(MixRound(1, (MixEdge("x", 0.5, own, theirs),)))
    stage.step()
    product = sent.products["layer"]
    rounded = product.scale * product.b.float() @ product.a.float()
    assert not torch.equal(rounded, now)
    assert torch.allclose(stage.dense(), best_rank(now + 0.5 * (dense - rounded), 2), atol=1e-5)
    assert torch.allclose(stage.head, head + 0.5 * (1.0 - sent.tensors["head"].float()))


@pytest.mark.parametrize("algorithm", ["dlora", "dlora-fa"])
def test_the_other_algorithms_mix_factors(tmp_path: Path, algorithm: str) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(1, overlap=True, algorithm=algorithm)).begin()
    stage.step()
    own = stage.link.last(RoundTrained).snapshot
    a, b = stage.layer.a.detach().clone(), stage.layer.b.detach().clone()
    other_a = a if algorithm == "dlora-fa" else a + 1
    adapter = Adapter({"layer": Product(b + 2, other_a, 2.0)}, {"head": stage.head.detach()})
    theirs = publish(tmp_path, adapter, wire="float32", schema="schema", base="base", round=1)
    stage.link.polled.append(MixRound(1, (MixEdge("x", 0.5, own, theirs),)))
    stage.step()
    assert torch.allclose(stage.layer.b, b + 1)
    assert torch.allclose(stage.layer.a, (a + other_a) / 2)


def test_a_mix_without_edges_changes_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(1)).begin()
    before = stage.live.read()
    stage.link.waiting.append(MixRound(1))
    stage.step()
    after = stage.live.read()
    assert torch.equal(before.products["layer"].a, after.products["layer"].a)
    assert torch.equal(before.products["layer"].b, after.products["layer"].b)
    mixed = stage.link.last(RoundMixed)
    assert (mixed.edges, mixed.tail, mixed.interference) == (0, 0.0, 0.0)
    assert mixed.norm == pytest.approx(stage.dense().norm().item(), rel=1e-5)


def test_edges_of_before_a_restart_are_mixed_whenever_they_come(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(5, File("s", "d", 1), File("t", "e", 1)), round=steps(2))
    own, dense_own = stage.theirs(1)
    theirs, dense_theirs = stage.theirs(2)
    stage.begin()
    assert stage.host.restored == [(File("s", "d", 1), File("t", "e", 1))]
    before = stage.dense()
    stage.link.polled.append(MixRound(4, (MixEdge("x", 0.5, own, theirs),)))
    stage.step()
    assert torch.allclose(stage.dense(), best_rank(before + 0.5 * (dense_theirs - dense_own), 2), atol=1e-4)
    stage.link.waiting.append(MixRound(5))
    stage.step()
    assert stage.link.last(RoundTrained).round == 5


def test_evaluation_is_due_every_few_rounds(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(1, evaluate_every=3)).begin()
    stage.link.waiting.extend(MixRound(number) for number in range(1, 7))
    for _ in range(6):
        stage.step()
    assert [message.round for message in stage.link.sent if isinstance(message, Evaluated)] == [3, 6]


def test_a_neighbours_snapshot_is_looked_at_while_the_model_is_evaluated_and_the_rest_comes_after(
    tmp_path: Path,
) -> None:
    """Else a node that is a little behind waits in vain for our receipt whenever we evaluate."""
    stage = Stage(tmp_path, StartTraining(1), round=steps(1, evaluate_every=1)).begin()
    theirs, _ = stage.theirs(1)
    stage.link.waiting.append(MixRound(1))
    stage.link.polled.extend([SaveState(1, str(tmp_path)), InspectSnapshot(theirs, theirs)])
    stage.link.polled.appendleft(MixRound(1))  # comes first, after the step
    stage.step()
    kinds = stage.link.kinds()
    assert kinds.index("SnapshotInspected") < kinds.index("Evaluated") < kinds.index("StateSaved")


def test_a_round_ends_with_the_next_step_when_that_is_asked_for_and_the_one_after_does_not(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), MixRound(1), round=steps(5)).begin()
    stage.step()
    stage.link.polled.append(EndRound(1))
    stage.step()
    assert stage.link.last(RoundTrained).steps == 2
    for _ in range(4):
        stage.step()
    assert stage.link.last(RoundTrained).round == 1


def test_an_evaluation_that_is_asked_for_is_answered_and_does_not_count_as_training(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(3), round=steps(5)).begin()
    stage.link.polled.append(Evaluate())
    stage.step()
    assert stage.link.last(EvaluatedNow) == EvaluatedNow(2, 0.5, 0.75, 8, 0.1)
    assert "Evaluated" not in stage.link.kinds()  # it is no figure of a round
    stage.host.held_out = False
    stage.link.polled.append(Evaluate())
    stage.step()
    assert stage.link.last(EvaluatedNow).examples == 0


def test_a_loss_that_is_not_known_yet_is_not_told_as_zero(tmp_path: Path) -> None:
    """An evaluation in the middle of the first step says that the trainer lives."""
    stage = Stage(tmp_path, StartTraining(3), round=steps(5)).begin()
    stage.link.polled.append(Evaluate())
    stage.step(loss=2.0, seconds=1.5)
    told = [message.loss for message in stage.link.sent if isinstance(message, Progress)]
    assert told[0] is None
    stage.step(loss=4.0, seconds=1.5)
    assert stage.link.last(Progress).loss == 3.0


def test_after_the_last_round_it_only_serves(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(2), round=steps(1, limit=2)).begin()
    theirs, _ = stage.theirs(1)
    stage.link.waiting.extend([MixRound(2), InspectSnapshot(theirs, theirs), SaveState(2, str(tmp_path)), Stop()])
    stage.step()
    assert stage.link.kinds()[-2:] == ["SnapshotInspected", "StateSaved"]
    assert stage.session.stopped


def test_a_restart_after_the_last_round_takes_no_step(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(3), Stop(), round=steps(1, limit=2)).begin()
    assert stage.session.stopped


@pytest.mark.parametrize("overlap", [True, False])
def test_a_pause_stops_at_the_step_and_requests_are_still_served(tmp_path: Path, overlap: bool) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(5, overlap=overlap)).begin()
    theirs, _ = stage.theirs(1)
    stage.link.polled.append(Pause())
    stage.link.waiting.extend([InspectSnapshot(theirs, theirs), SaveState(1, str(tmp_path)), Resume()])
    stage.step()
    assert stage.link.kinds() == ["TrainerReady", "SnapshotInspected", "StateSaved"]
    assert not stage.link.waiting
    stage.step()
    assert not stage.session.stopped


def test_a_daemon_that_goes_away_ends_the_session(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(1)).begin()
    stage.step()  # waits for its mix, and nobody is there
    assert stage.session.stopped


def test_a_stop_while_waiting_to_start(tmp_path: Path) -> None:
    stage = Stage(tmp_path, Stop()).begin()
    assert stage.session.stopped
    assert not stage.session.started


def test_a_neighbours_snapshot_is_inspected(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1)).begin()
    (one, dense_one), (two, dense_two) = stage.theirs(1), stage.theirs(2, rank=3)
    stage.link.polled.append(InspectSnapshot(two, one))
    stage.step()
    seen = stage.link.last(SnapshotInspected)
    assert (seen.digest, seen.finite, seen.problem) == (two.digest, True, "")
    assert seen.distance == pytest.approx((dense_one - best_rank(dense_two, 2)).norm().item(), rel=1e-5)
    assert seen.norm == pytest.approx(dense_one.norm().item(), rel=1e-5)
    assert seen.plain_distance == 0.0
    assert seen.plain_norm == pytest.approx(math.sqrt(3))


def test_a_head_that_lies_is_seen_though_the_products_agree(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1)).begin()
    one, liar = stage.theirs(1)[0], stage.theirs(1, head=-1.0)[0]
    stage.link.polled.append(InspectSnapshot(liar, one))
    stage.step()
    seen = stage.link.last(SnapshotInspected)
    assert seen.distance == pytest.approx(0.0, abs=1e-5)
    assert seen.plain_distance == pytest.approx(2 * math.sqrt(3))


def test_where_factors_are_mixed_their_distance_counts(tmp_path: Path) -> None:
    """One product has factors of any size, and a mix of factors is wrecked by such."""
    stage = Stage(tmp_path, StartTraining(1), round={"algorithm": "dlora"}).begin()
    own = stage.written(Product(torch.ones(4, 2), torch.ones(2, 5), 2.0))
    liar = stage.written(Product(1000 * torch.ones(4, 2), torch.ones(2, 5) / 1000, 2.0))
    stage.link.polled.append(InspectSnapshot(liar, own))
    stage.step()
    seen = stage.link.last(SnapshotInspected)
    assert seen.distance == pytest.approx(math.sqrt(8 * 999**2 + 10 * 0.999**2))
    assert seen.norm == pytest.approx(math.sqrt(18))


def test_a_frozen_a_that_is_another_is_found_out_before_the_mix(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round={"algorithm": "dlora-fa"}).begin()
    own, other = stage.theirs(1)[0], stage.theirs(2)[0]
    stage.link.polled.append(InspectSnapshot(other, own))
    stage.step()
    seen = stage.link.last(SnapshotInspected)
    assert (seen.finite, seen.problem != "") == (False, True)


@pytest.mark.parametrize("harm", ["nan in a factor", "inf in a head", "cut", "other layers", "not there"])
def test_what_cannot_be_mixed_is_found_out(tmp_path: Path, harm: str) -> None:
    stage = Stage(tmp_path, StartTraining(1)).begin()
    own, _ = stage.theirs(1)
    b, a, head, name = torch.ones(4, 2), torch.ones(2, 5), torch.ones(3), "layer"
    match harm:
        case "nan in a factor":
            a[1, 2] = math.nan
        case "inf in a head":
            head[0] = math.inf
        case "other layers":
            name = "elsewhere"
    bad = publish(
        tmp_path, Adapter({name: Product(b, a)}, {"head": head}), wire="float32", schema="s", base="b", round=1
    )
    if harm == "cut":
        Path(bad.path).write_bytes(Path(bad.path).read_bytes()[:-4])
    if harm == "not there":
        Path(bad.path).unlink()
    stage.link.polled.append(InspectSnapshot(bad, own))
    stage.step()
    seen = stage.link.last(SnapshotInspected)
    assert (seen.digest, seen.finite) == (bad.digest, False)
    assert seen.problem


def test_a_newcomer_adopts_the_medoid_and_keeps_its_own_change(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(1)).begin()
    (one, dense), (liar, _) = stage.theirs(1, round=41), stage.theirs(9, round=99)
    near = stage.theirs(1, head=3.0, round=41)[0]
    before = stage.dense()
    stage.link.waiting.extend([AdoptState((one, near, liar)), MixRound(41), MixRound(42)])
    stage.step()
    adopted = stage.link.last(StateAdopted)
    assert (adopted.round, adopted.chosen) == (41, one.digest)
    assert torch.allclose(stage.dense(), best_rank(dense + before, 2), atol=1e-5)
    assert torch.equal(stage.head.detach(), torch.full((3,), 1.0))
    stage.step()
    assert stage.link.last(RoundTrained).round == 42


def test_where_factors_are_mixed_a_newcomer_takes_the_factors(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(1, algorithm="dlora")).begin()
    own = stage.layer.b.detach().clone()
    chosen, _ = stage.theirs(1, round=41)
    theirs = read_snapshot(Path(chosen.path))[1].products["layer"]
    stage.link.waiting.extend([AdoptState((chosen,)), MixRound(41)])
    stage.step()
    # scales (ours 2, theirs 1/2) are folded into both factors alike
    assert torch.allclose(stage.layer.a.detach(), theirs.a / 2, atol=1e-6)
    assert torch.allclose(stage.layer.b.detach(), theirs.b / 2 + own, atol=1e-6)


def test_an_absent_node_adds_its_change_since_its_base(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1)).begin()
    (chosen, dense), (base, dense_base) = stage.theirs(1), stage.theirs(2)
    before = stage.dense()
    stage.link.polled.append(AdoptState((chosen,), base))
    stage.step()
    assert torch.allclose(stage.dense(), best_rank(dense + before - dense_base, 2), atol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_publishes_nothing(tmp_path: Path, bad: float) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(2)).begin()
    stage.step(1.0)
    with pytest.raises(BadData) as caught:
        stage.step(bad)
    assert caught.value.reason == "training.loss-not-finite"
    assert list(tmp_path.iterdir()) == []
    assert "RoundTrained" not in stage.link.kinds()


def test_factors_that_are_not_finite_publish_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(1)).begin()
    with torch.no_grad():
        stage.layer.b[0, 0] = math.nan
    with pytest.raises(BadData) as caught:
        stage.step()
    assert caught.value.reason == "training.factors-not-finite"
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_is_told_and_training_goes_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(9)).begin()
    stage.host.full = True
    stage.link.polled.append(SaveState(1, str(tmp_path)))
    stage.step()
    assert stage.link.last(SaveFailed) == SaveFailed(1, "There is no room left.")
    stage.host.full = False
    stage.link.polled.append(SaveState(1, str(tmp_path)))
    stage.step()
    assert stage.link.last(StateSaved).round == 1
    assert not stage.session.stopped


def test_progress_is_told_once_a_second(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(7), round=steps(100)).begin()
    for number in range(12):
        stage.step(loss=float(number), seconds=0.25)
    told = [message for message in stage.link.sent if isinstance(message, Progress)]
    assert [(message.round, message.step) for message in told] == [(7, 4), (7, 8), (7, 12)]
    assert all(message.steps_per_second == pytest.approx(4.0) for message in told)


def test_a_message_that_is_not_for_a_trainer(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1)).begin()
    stage.link.polled.append(TrainerReady("", "", 1, 1, "", {}))
    with pytest.raises(Bug) as caught:
        stage.step()
    assert caught.value.reason == "training.unexpected-message"


def test_what_a_users_own_trainer_evaluates_is_told_once_a_round(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(1, evaluate_every=100)).begin()
    evaluation = Evaluation(0.3, None, 5, 0.1)
    stage.session.evaluation_known(evaluation)
    assert "Evaluated" not in stage.link.kinds()  # no round is complete yet
    stage.link.waiting.append(MixRound(1))
    stage.step()
    stage.session.evaluation_known(evaluation)
    stage.session.evaluation_known(evaluation)
    told: Sequence[Evaluated] = [message for message in stage.link.sent if isinstance(message, Evaluated)]
    assert told == [Evaluated(1, 0.3, None, 5, 0.1)]


def resting(stage: Stage) -> list[float]:
    """Let time pass while the session waits; return when it has published, from now on."""
    published: list[float] = []

    def passed(seconds: float) -> None:
        stage.now += seconds

    def send(message: FromTrainer) -> None:
        stage.link.sent.append(message)
        if isinstance(message, RoundTrained):
            published.append(stage.now)

    stage.link.passed = passed  # type: ignore[method-assign]
    stage.link.send = send  # type: ignore[method-assign]
    return published


def test_a_spent_budget_ends_the_steps_and_not_the_rounds(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), budget=ScriptedBudget(4), round=steps(3)).begin()
    published = resting(stage)
    stage.link.waiting.extend([MixRound(1), MixRound(2), MixRound(3)])
    for _ in range(4):
        stage.step()
    trained = [message for message in stage.link.sent if isinstance(message, RoundTrained)]
    assert [(said.round, said.steps, said.loss) for said in trained] == [
        (1, 3, 1.0),
        (2, 1, 1.0),
        (3, 0, 0.0),
        (4, 0, 0.0),
    ]
    assert published == [0.75, 1.0, 1.75, 2.5]  # as long as a round of three steps took
    assert [said.left for said in stage.link.sent if isinstance(said, PrivacySpent)] == [4, 1, 0]
    assert stage.session.stopped  # the daemon is gone; until then it would go on


def test_without_steps_it_still_gives_and_takes_what_mixing_makes(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), budget=ScriptedBudget(1), round=steps(1)).begin()
    resting(stage)
    theirs, dense = stage.theirs(seed=7)
    own = publish(tmp_path, stage.live.read(), wire="float32", schema="schema", base="base", round=1)
    stage.link.waiting.append(MixRound(1, (MixEdge("peer", 1.0, own, theirs),)))
    stage.step()
    _, last = read_snapshot(Path(stage.link.last(RoundTrained).snapshot.path))
    assert stage.link.last(RoundTrained).round == 2
    torch.testing.assert_close(last.products["layer"].dense().float(), dense, rtol=1e-3, atol=1e-4)


def test_what_is_not_trained_any_more_is_not_sent_in_compact(tmp_path: Path) -> None:
    """Its error would never be trained away."""
    mixing = {"wire": "compact"}
    stage = Stage(tmp_path, StartTraining(1), budget=ScriptedBudget(1), round=steps(1), mixing=mixing).begin()
    resting(stage)
    stage.link.waiting.append(MixRound(1))
    stage.step()
    sent = [message.snapshot for message in stage.link.sent if isinstance(message, RoundTrained)]
    assert [read_header(Path(snapshot.path)).deflated for snapshot in sent] == [True, False]
    assert {info.dtype for info in read_header(Path(sent[1].path)).tensors.values()} == {"I8", "F32"}


def test_the_limit_of_a_peers_snapshot_is_of_what_it_holds_and_not_of_our_own(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), round=steps(1), limits={"snapshot_bytes": 100}).begin()
    big = stage.live.read()
    own = publish(tmp_path, big, wire="compact", schema="schema", base="base", round=1)
    theirs = publish(
        tmp_path,
        Adapter(big.products, {"head": big.tensors["head"] + 1}),
        wire="compact",
        schema="schema",
        base="base",
        round=2,
    )
    small, _ = stage.theirs(1)
    stage.link.polled.extend([InspectSnapshot(theirs, own), InspectSnapshot(small, own)])
    stage.step()
    looks = [message for message in stage.link.sent if isinstance(message, SnapshotInspected)]
    assert "deflated, and this node takes 100; raise limits.snapshot_bytes" in looks[0].problem
    assert theirs.digest[:12] in looks[0].problem
    assert looks[1].problem == ""


def test_own_snapshots_are_read_once_for_all_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are one term of the mix: its small matrices grow with the square of their number."""
    stage = Stage(tmp_path, StartTraining(1), round=steps(1, overlap=True)).begin()
    stage.step()
    own = stage.link.last(RoundTrained).snapshot
    others = [stage.theirs(seed)[0] for seed in (1, 2, 3)]
    with torch.no_grad():  # trained on
        stage.layer.b.add_(0.1)
    read: list[str] = []

    def counted(file: File, *more: Any) -> Any:
        read.append(file.digest)
        return fetch(file, *more)

    monkeypatch.setattr("decaf_node.training.exchange.fetch", counted)
    stage.link.polled.append(MixRound(1, tuple(MixEdge("x", 0.25, own, theirs) for theirs in others)))
    stage.step()
    assert sorted(read) == sorted([own.digest, *(theirs.digest for theirs in others)])


def test_a_budget_that_was_spent_before_takes_no_step_at_all(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(5), budget=ScriptedBudget(0), round={"steps": 3, "seconds": 60.0})
    published = resting(stage)
    stage.link.waiting.append(MixRound(5))
    stage.begin()
    assert stage.link.kinds()[:2] == ["TrainerReady", "PrivacySpent"]
    assert published == [60.0, 120.0]
    assert stage.link.last(RoundTrained).steps == 0
    assert stage.session.stopped


def test_with_overlap_the_last_steps_wait_for_the_mix_before_them(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), budget=ScriptedBudget(3), round=steps(2, overlap=True)).begin()
    resting(stage)
    stage.step()
    stage.step()
    assert stage.link.last(RoundTrained).round == 1
    stage.link.waiting.append(MixRound(1))  # not before it is waited for
    stage.step()
    assert [said.steps for said in stage.link.sent if isinstance(said, RoundTrained)] == [2, 1]
    assert stage.link.kinds().index("RoundMixed") < len(stage.link.kinds()) - 2


def test_a_pause_and_a_limit_hold_without_steps_too(tmp_path: Path) -> None:
    stage = Stage(tmp_path, StartTraining(1), budget=ScriptedBudget(1), round=steps(1, limit=2)).begin()
    published = resting(stage)
    waits: list[float] = []

    def passed(seconds: float) -> None:
        if len(waits) == 0:
            stage.link.polled.append(Pause())
        waits.append(seconds)
        stage.now += seconds if len(waits) > 1 else 0.0

    class LongPause(deque[Message]):
        def popleft(self) -> Message:
            stage.now += 100.0
            return super().popleft()

    stage.link.passed = passed  # type: ignore[method-assign]
    stage.link.waiting = LongPause([MixRound(1), Resume(), MixRound(2), SaveState(2, str(tmp_path / "saved"))])
    stage.step()
    assert published == [0.25, pytest.approx(200.25, abs=1.0)]
    assert stage.link.kinds()[-1] == "StateSaved"  # the rounds are over: it only serves
