from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from decaf_node.link import InspectSnapshot, RoundTrained, SnapshotInspected
from decaf_node.lowrank.adapter import Adapter
from decaf_node.lowrank.product import Product
from decaf_node.training.callback import DecafCallback
from decaf_node.training.exchange import Exchange, Identity
from decaf_node.training.held_out import EXAMPLES, HeldOut, slice_of
from decaf_node.training.live import LiveAdapter, LiveLayer
from decaf_node.training.spool import publish
from tests.training.fake_daemon import running_worker
from tests.training.tiny import LABELS, causal_settings, classifier_settings, make_bert, topic_rows, write_rows

HERE = Path(__file__).parent
TARGET = torch.full((4, 5), 2.0)  # what the live adapter should become; the loss is the squared distance from it


class Model:
    """One live layer, and a loss that counts how often it was asked for."""

    def __init__(self) -> None:
        self.layer = LiveLayer(nn.Parameter(torch.ones(2, 5)), nn.Parameter(torch.zeros(4, 2)), 1.0)
        self.live = LiveAdapter({"layer": self.layer}, {})
        self.asked = 0

    def loss(self) -> float:
        self.asked += 1
        return float((self.layer.b @ self.layer.a - TARGET).detach().square().sum())


def adapter(value: float) -> Adapter:
    """Return an adapter whose product is ``value`` everywhere."""
    return Adapter({"layer": Product(torch.full((4, 2), value / 2), torch.ones(2, 5), 1.0)}, {})


def test_harm_is_what_is_added_in_parts_of_the_loss_before_any_training() -> None:
    held_out = HeldOut(Model().live, lambda: 1.0)
    assert held_out.harm("x", adapter(1.0), adapter(1.0)) == 0.0
    model = Model()
    held_out = HeldOut(model.live, model.loss)
    assert held_out.harm("own", adapter(1.0), adapter(0.0)) == pytest.approx(0.75)  # (2 - 0)^2 - (2 - 1)^2 beside 2^2
    assert held_out.harm("own", adapter(1.0), adapter(1.5)) == 0.0
    assert model.asked == 4  # the untrained loss and our own are worked out once


def test_who_knows_its_own_by_heart_has_the_same_unit_as_before() -> None:
    model = Model()
    held_out = HeldOut(model.live, model.loss)
    model.live.load(adapter(2.0))
    assert held_out.harm("own", adapter(2.0), adapter(1.0)) == pytest.approx(0.25)


def test_the_live_adapter_is_put_back_bit_for_bit() -> None:
    model = Model()
    torch.manual_seed(1)
    with torch.no_grad():
        model.layer.b.normal_()
    before = [model.layer.a.clone(), model.layer.b.clone()]
    HeldOut(model.live, model.loss).harm("own", adapter(1.0), adapter(9.0))
    assert torch.equal(model.layer.a, before[0])
    assert torch.equal(model.layer.b, before[1])


def test_a_loss_that_is_no_number_is_infinite_harm() -> None:
    losses = iter([2.0, 1.0, math.nan])
    held_out = HeldOut(Model().live, lambda: next(losses))
    assert held_out.harm("own", adapter(1.0), adapter(0.0)) == math.inf
    losses = iter([0.0, 0.0, 5.0])
    held_out = HeldOut(Model().live, lambda: next(losses))
    assert held_out.harm("own", adapter(1.0), adapter(0.0)) == 0.0  # nothing to measure by


def test_the_slice_is_the_same_each_time_and_from_everywhere() -> None:
    assert slice_of(range(10)) == list(range(10))
    many = slice_of(range(1000))
    assert len(many) == EXAMPLES
    assert many[-1] > 900
    assert slice_of([]) == []


@pytest.mark.parametrize("algorithm", ["decaf", "dlora"])
def test_at_inspection_a_half_way_mix_is_tried(tmp_path: Path, algorithm: str) -> None:
    model = Model()
    settings = causal_settings(HERE, HERE, round={"algorithm": algorithm})
    exchange = Exchange(model.live, tmp_path, settings, Identity("s", "b"), loss=model.loss)
    own, liar = (
        publish(tmp_path, adapter(value), wire="float32", schema="s", base="b", round=1) for value in (1.0, -1.0)
    )
    assert exchange.inspect(liar, own).harm == pytest.approx(0.75, rel=1e-4)
    assert exchange.inspect(own, own).harm == pytest.approx(0.0, abs=1e-4)
    plain = Exchange(model.live, tmp_path, settings, Identity("s", "b"))
    assert plain.inspect(liar, own).harm == 0.0


def test_a_script_without_held_out_data_is_told_so_once(caplog: pytest.LogCaptureFixture) -> None:
    scored = causal_settings(HERE, HERE, security={"robust": "score"})
    with caplog.at_level(logging.WARNING):
        assert DecafCallback(held_out=lambda: 1.0)._scored_by(causal_settings(HERE, HERE)) is None
        assert DecafCallback(held_out=lambda: 1.0)._scored_by(scored) is not None
        assert not caplog.messages
        assert DecafCallback()._scored_by(scored) is None
    assert len(caplog.messages) == 1
    assert "neighbours are clipped and not scored" in caplog.messages[0]


@pytest.mark.slow
def test_the_built_in_trainer_scores_neighbours_on_its_held_out_part(tmp_path: Path) -> None:
    bert = make_bert(tmp_path / "bert")
    rows = topic_rows(16)
    wrong = [{**row, "label": LABELS[LABELS.index(row["label"]) - 1]} for row in rows]
    honest, liar = (
        classifier_settings(
            bert, write_rows(tmp_path / f"{name}.jsonl", of), security={"robust": "score"}, round={"steps": 30}
        )
        for name, of in (("rows", rows), ("wrong", wrong))
    )
    with running_worker() as one, running_worker() as two:
        trained = []
        for worker, given in ((one, honest), (two, liar)):
            worker.daemon.start(given)
            trained.append(worker.daemon.expect(RoundTrained).snapshot)
        one.daemon.send(InspectSnapshot(trained[1], trained[0]))
        assert one.daemon.expect(SnapshotInspected).harm > 0.05
        one.daemon.send(InspectSnapshot(trained[0], trained[0]))
        assert one.daemon.expect(SnapshotInspected).harm == pytest.approx(0.0, abs=1e-3)
