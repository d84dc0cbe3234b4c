from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import get_constant_schedule_with_warmup

from decaf_node.errors import BadData
from decaf_node.training.data import Position
from decaf_node.training.state import Progressed, load_trainer_state, restore_generators, save_trainer_state

PROGRESSED = Progressed(17, Position(3, 5))


class Setup:
    """Two parameters, an optimizer and a schedule, some steps on."""

    def __init__(self, optimizer: str = "AdamW", lr: float = 0.1, rank: int = 2) -> None:
        generator = torch.Generator().manual_seed(0)
        self.named = {
            "a": nn.Parameter(torch.randn(rank, 3, generator=generator)),
            "head": nn.Parameter(torch.randn(4, generator=generator)),
        }
        self.optimizer = getattr(torch.optim, optimizer)(self.named.values(), lr=lr)
        self.scheduler = get_constant_schedule_with_warmup(self.optimizer, num_warmup_steps=10)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            loss = sum((parameter - 1).square().sum() for parameter in self.named.values())
            assert isinstance(loss, torch.Tensor)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()

    def save(self, path: Path) -> None:
        save_trainer_state(path, self.named, self.optimizer, self.scheduler, PROGRESSED)

    def load(self, path: Path) -> tuple[Progressed, dict[str, Any]]:
        return load_trainer_state(path, self.named, self.optimizer, self.scheduler)


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD", "RMSprop", "Adagrad"])
def test_training_goes_on_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    one, two = Setup(optimizer), Setup(optimizer)
    one.train(6)
    one.save(tmp_path / "state")
    with torch.no_grad():
        for name, parameter in one.named.items():
            two.named[name].copy_(parameter)
    assert two.load(tmp_path / "state")[0] == PROGRESSED
    one.train(7)  # over the end of the warm-up
    two.train(7)
    for name, parameter in one.named.items():
        assert torch.equal(parameter, two.named[name])
    assert one.scheduler.get_last_lr() == two.scheduler.get_last_lr() == [0.1]


def test_the_generators_go_on_as_saved(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [torch.rand(1).item(), random.random(), float(np.random.rand()), float(np.random.randn())]

    setup = Setup()
    draw()
    setup.save(tmp_path / "state")
    drawn = draw()
    _, generators = Setup().load(tmp_path / "state")
    assert draw() != drawn
    restore_generators(generators)
    assert draw() == drawn


def test_a_learning_rate_that_was_changed_in_the_settings_counts(tmp_path: Path) -> None:
    one, two = Setup(lr=0.1), Setup(lr=0.4)
    one.train(5)
    one.save(tmp_path / "state")
    two.load(tmp_path / "state")
    assert two.optimizer.param_groups[0]["lr"] == pytest.approx(0.4 * 5 / 10)
    two.train(5)
    assert two.optimizer.param_groups[0]["lr"] == pytest.approx(0.4)


def test_moments_of_another_rank_are_left_out(tmp_path: Path) -> None:
    one, two = Setup(), Setup(rank=3)
    one.train(3)
    one.save(tmp_path / "state")
    two.load(tmp_path / "state")
    assert two.named["a"] not in two.optimizer.state
    assert torch.equal(
        two.optimizer.state[two.named["head"]]["exp_avg"], one.optimizer.state[one.named["head"]]["exp_avg"]
    )
    two.train(1)


@pytest.mark.parametrize("harm", ["empty", "cut", "not there", "other"])
def test_a_damaged_state_is_refused_in_a_sentence(tmp_path: Path, harm: str) -> None:
    path, setup = tmp_path / "state", Setup()
    setup.train(1)
    setup.save(path)
    match harm:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:-9])
        case "not there":
            path.unlink()
        case "other":
            path.write_bytes(b"\x80\x04}\x94.")  # a pickle
    with pytest.raises(BadData, match="damaged") as caught:
        setup.load(path)
    assert caught.value.reason == "training.state-damaged"
