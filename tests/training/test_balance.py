"""Labels weighed evenly: by the formula, when the data change, and in a real trainer."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from decaf_node.link import LABELS_LIMIT, Welcome
from decaf_node.training.alone import LinkToNobody
from decaf_node.training.assembly import assemble
from decaf_node.training.balance import RARE, BalancedLoss, log_weights
from decaf_node.training.host import TrainerHost
from decaf_node.training.live import LiveAdapter
from tests.training.tiny import LABELS, classifier_settings, make_bert, topic_rows, write_rows


def examples_of(*labels: int) -> list[Any]:
    return [SimpleNamespace(label=label) for label in labels]


def loss_of(count: int, *labels: int, smoothing: float = 0.0) -> BalancedLoss:
    examples = examples_of(*labels)
    return BalancedLoss(lambda: examples, count, smoothing)


def reference(logits: Tensor, labels: Tensor, counts: list[float], smoothing: float = 0.0) -> float:
    """The mean loss, in float64."""
    weights = np.array(counts) * np.exp(logits.double().numpy())
    losses = -np.log(weights / weights.sum(1, keepdims=True))
    own = losses[np.arange(len(labels)), labels.numpy()]
    return float(((1 - smoothing) * own + smoothing * losses.mean(1)).mean())


def test_frequencies_of_labels_that_are_there_and_that_are_not() -> None:
    def times(*counts: int, rare: float) -> list[float]:
        """Beside labels that are all alike."""
        even = torch.full((len(counts),), 1 / len(counts))
        return log_weights(torch.tensor(counts), even, rare).exp().tolist()

    assert times(0, 3, 0, 1, rare=0.25) == pytest.approx([0.5, 3.0, 0.5, 1.0])
    assert times(0, 0, 3, rare=0.1) == pytest.approx([0.3, 0.3, 3.0])
    assert times(0, 0, 3, rare=0.5) == pytest.approx([1.0, 1.0, 3.0]), "a label that is not here is never frequent"
    assert times(1, 0, rare=0.0) == [2.0, 0.0], "as if the label did not exist"


def test_how_much_more_frequent_labels_are_here_than_in_the_mesh() -> None:
    def times(*mesh: float) -> list[float]:
        return log_weights(torch.tensor([3, 2, 1, 0]), torch.tensor(mesh), 0.1).exp().tolist()

    assert times(3 / 6, 2 / 6, 1 / 6, 0.2 / 6) == pytest.approx([1.0] * 4)
    assert times(0.1, 0.2, 0.3, 0.4) == pytest.approx([5.0, 5 / 3, 5 / 9, 1 / 12])
    assert times(0.4, 0.3, 0.3, 0.0) == pytest.approx([1.25, 10 / 9, 5 / 9, 1.0]), "no more than where it hardly is"
    assert times(0.0, 0.5, 0.5, 0.0)[0] == pytest.approx(0.5 / 1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_the_loss_of_the_labels_weighed_by_their_frequency(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 0, 1])
    loss = loss_of(4, 0, 0, 0, 0, 1, 1, 1, 2, 2, smoothing=smoothing)
    expected = reference(logits, labels, [4, 3, 2, 3 * RARE], smoothing)
    outputs = SimpleNamespace(logits=logits)
    assert float(loss(outputs, labels)) == pytest.approx(expected, rel=1e-6)
    assert float(loss(outputs, labels, torch.tensor(24))) == pytest.approx(expected / 4, rel=1e-6)  # of four batches


def test_even_labels_change_nothing() -> None:
    logits, labels = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    loss = loss_of(2, 0, 1, 0, 1)(SimpleNamespace(logits=logits), labels)
    assert float(loss) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-6)


def test_it_weighs_as_in_the_mesh_once_it_knows() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    loss = loss_of(3, 0, 1, 1, 1)
    assert (loss.own, loss.mesh) == ((0.25, 0.75, 0.0), ())
    outputs = SimpleNamespace(logits=logits)
    before = float(loss(outputs, labels))
    loss.weigh((0.25, 0.5, 0.25))
    assert loss.mesh == (0.25, 0.5, 0.25)
    assert float(loss(outputs, labels)) == pytest.approx(
        reference(logits, labels, [1 / 0.25, 3 / 0.5, 2 * RARE / 0.25]), rel=1e-6
    )
    loss.weigh((0.5, 0.5))  # of another number of labels
    assert not loss.mesh
    assert float(loss(outputs, labels)) == before


def test_how_frequent_labels_are_is_told_unless_they_are_too_many() -> None:
    nothing: Any = None

    def told(labels: int) -> tuple[float, ...]:
        loss = loss_of(labels, 0, 1, 1, 1)
        around = (nothing,) * 10  # none of it is asked
        return TrainerHost(*around, labels=loss).own_labels

    assert told(3) == (0.25, 0.75, 0.0)
    assert len(told(LABELS_LIMIT)) == LABELS_LIMIT
    assert told(LABELS_LIMIT + 1) == ()


def test_a_label_that_is_not_here_is_told_apart_from_those_that_are() -> None:
    logits = torch.zeros(4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        loss_of(3, 0, 2)(SimpleNamespace(logits=logits), torch.tensor([0, 2, 2, 0])), logits
    )
    assert gradient[:, 1].tolist() == pytest.approx([RARE / (2 + RARE) / 4] * 4)


def test_what_the_files_hold_now_counts() -> None:
    logits, labels = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    held = SimpleNamespace(examples=examples_of(0, 0, 0, 1))
    loss = BalancedLoss(lambda: held.examples, 2)
    assert float(loss(SimpleNamespace(logits=logits), labels)) == pytest.approx(
        reference(logits, labels, [3, 1]), rel=1e-6
    )
    held.examples = examples_of(0, 1, 1, 1, 1)
    assert float(loss(SimpleNamespace(logits=logits), labels)) == pytest.approx(
        reference(logits, labels, [1, 4]), rel=1e-6
    )


def test_rows_follow_the_labels_that_are_here_now() -> None:
    head, other, scalar = (torch.nn.Parameter(torch.ones(shape)) for shape in ((3, 2), (2, 3), ()))
    held = SimpleNamespace(examples=examples_of(0, 1))
    loss = BalancedLoss(lambda: held.examples, 3)
    loss.leave_absent_rows(LiveAdapter({}, {"head": head, "other": other, "scalar": scalar}))

    def moves() -> list[bool]:
        logits = torch.ones(1, 2) @ head.T * other.sum() * scalar
        gradients = torch.autograd.grad(loss(SimpleNamespace(logits=logits), torch.tensor([0])), [head, other, scalar])
        assert all(gradient.abs().min() > 0 for gradient in gradients[1:])
        return (gradients[0].abs().amax(1) > 0).tolist()

    assert moves() == [True, True, False]
    held.examples = examples_of(0, 2)
    assert moves() == [True, False, True]


def test_the_trainers_own_smoothing_counts(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(6, LABELS))
    smoothed = {"arguments": {"label_smoothing_factor": 0.1}}
    given = classifier_settings(make_bert(tmp_path / "bert"), rows, training=smoothed)
    welcome = Welcome("", "node", given.model_dump(mode="json"), str(tmp_path), "")
    assembled = assemble(given, None, welcome, tmp_path)
    loss = assembled.trainer.compute_loss_func
    assert loss is not None
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    counts = np.bincount([example.label for example in assembled.data.stream.examples]).tolist()
    assert float(loss(SimpleNamespace(logits=logits), labels)) == pytest.approx(
        reference(logits, labels, counts, 0.1), rel=1e-5
    )


@pytest.mark.parametrize("balanced", [None, False])
def test_a_node_without_a_label_leaves_what_the_head_knows_of_it(tmp_path: Path, balanced: bool | None) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(12, LABELS[:2]))
    given = classifier_settings(
        make_bert(tmp_path / "bert"),
        rows,
        round={"steps": 6, "limit": 1},
        training={
            "balance_labels": balanced,
            "arguments": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-2},
        },
    )
    (tmp_path / "spool").mkdir()
    told: list[float] = []
    link = LinkToNobody(given, lambda round, loss, accuracy: told.append(loss))
    welcome = Welcome("", "node", given.model_dump(mode="json"), str(tmp_path / "spool"), "")
    assembled = assemble(given, link, welcome, tmp_path)
    head = assembled.model.get_base_model().classifier.modules_to_save["default"]
    before = [row.detach().clone() for row in head.parameters()]
    assembled.trainer.train()
    for rows, then in zip(head.parameters(), before, strict=True):
        moved = (rows - then).abs().reshape(3, -1).amax(1)
        assert moved[:2].min() > 1e-3
        assert (moved[2] == 0.0) == (balanced is None)
    assert 0.0 < told[0] < math.log(3) * 1.5  # a mean over examples, whatever is accumulated
