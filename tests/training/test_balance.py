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

from decaf_node.link import Welcome
from decaf_node.training.alone import LinkToNobody
from decaf_node.training.assembly import assemble
from decaf_node.training.balance import ABSENT, BalancedLoss, log_frequencies
from tests.training.tiny import LABELS, classifier_settings, make_bert, topic_rows, write_rows


def examples_of(*labels: int) -> list[Any]:
    return [SimpleNamespace(label=label) for label in labels]


def loss_of(*labels: int) -> BalancedLoss:
    examples = examples_of(*labels)
    return BalancedLoss(lambda: examples)


def reference(logits: Tensor, labels: Tensor, frequencies: list[float]) -> float:
    """The mean loss, in float64 and with a sum over the labels that are there."""
    weights = np.array(frequencies) * np.exp(logits.double().numpy())
    own = weights[np.arange(len(labels)), labels.numpy()] / weights.sum(1)
    return float(-np.log(own).mean())


def test_frequencies_of_labels_that_are_there_and_that_are_not() -> None:
    assert log_frequencies([2, 2, 2], 4).tolist() == [0.0] * 4, "a node with a single label would learn nothing"
    assert log_frequencies([1, 1, 3, 1], 4).tolist() == pytest.approx([ABSENT, math.log(0.75), ABSENT, math.log(0.25)])


def test_it_is_the_loss_of_the_labels_weighed_by_their_frequency() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 0, 1])
    loss = loss_of(0, 0, 0, 0, 1, 1, 1, 2)
    expected = reference(logits, labels, [1 / 2, 3 / 8, 1 / 8])
    outputs = SimpleNamespace(logits=logits)
    assert float(loss(outputs, labels)) == pytest.approx(expected, rel=1e-6)
    assert float(loss(outputs, labels, torch.tensor(24))) == pytest.approx(expected / 4, rel=1e-6)  # of four batches


def test_even_labels_change_nothing() -> None:
    logits, labels = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    loss = loss_of(0, 1, 0, 1)(SimpleNamespace(logits=logits), labels)
    assert float(loss) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-6)


def test_labels_that_are_not_here_have_no_gradient() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    loss = loss_of(0, 2)(SimpleNamespace(logits=logits), torch.tensor([0, 2, 2, 0]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[:, 1].abs().max() == 0.0
    assert gradient[:, 0].abs().min() > 0.0


def test_what_the_files_hold_now_counts() -> None:
    logits, labels = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    held = SimpleNamespace(examples=examples_of(0, 0, 0, 1))
    loss = BalancedLoss(lambda: held.examples)
    assert float(loss(SimpleNamespace(logits=logits), labels)) == pytest.approx(
        reference(logits, labels, [3 / 4, 1 / 4]), rel=1e-6
    )
    held.examples = examples_of(0, 1, 1, 1, 1)
    assert float(loss(SimpleNamespace(logits=logits), labels)) == pytest.approx(
        reference(logits, labels, [1 / 5, 4 / 5]), rel=1e-6
    )


def test_smoothing_over_labels_that_are_left_out_is_refused(tmp_path: Path) -> None:
    both = {"balance_labels": True, "arguments": {"label_smoothing_factor": 0.1}}
    with pytest.raises(ValueError, match="label_smoothing_factor trains all labels"):
        classifier_settings(tmp_path, tmp_path, training=both)


@pytest.mark.parametrize("balanced", [True, False])
def test_a_node_without_a_label_leaves_what_the_head_knows_of_it(tmp_path: Path, balanced: bool) -> None:
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
    before = head.weight.detach().clone()
    assembled.trainer.train()
    moved = (head.weight - before).abs().amax(1)
    assert moved[:2].min() > 1e-3
    assert (moved[2] == 0.0) == balanced
    assert 0.0 < told[0] < math.log(2 if balanced else 3) * 1.5  # a mean over examples, whatever is accumulated
