from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from decaf_node.errors import BadSettings
from decaf_node.training.arguments import training_arguments
from tests.training.tiny import causal_settings


def arguments(folder: Path, **given: Any) -> Any:
    return training_arguments(causal_settings(folder, folder, training={"arguments": given, "seed": 5}), folder)


def reason_of(folder: Path, **given: Any) -> str:
    with pytest.raises(BadSettings) as caught:
        arguments(folder, **given)
    assert next(iter(given)) in caught.value.message
    return caught.value.reason


def test_the_users_own_pass_through(tmp_path: Path) -> None:
    built = arguments(tmp_path, learning_rate=0.25, weight_decay=0.5, optim="sgd", gradient_accumulation_steps=3)
    assert (built.learning_rate, built.weight_decay, built.optim) == (0.25, 0.5, "sgd")
    assert built.gradient_accumulation_steps == 3


def test_a_node_trains_for_ever_at_a_constant_rate_and_writes_nothing(tmp_path: Path) -> None:
    built = arguments(tmp_path)
    assert built.max_steps > 10**9
    assert built.lr_scheduler_type == "constant_with_warmup"
    assert (built.save_strategy, built.eval_strategy, built.report_to) == ("no", "no", [])
    assert built.seed == 5
    assert built.disable_tqdm
    assert built.learning_rate == 3e-4
    assert built.dataloader_pin_memory == torch.cuda.is_available()


def test_an_unknown_key(tmp_path: Path) -> None:
    assert reason_of(tmp_path, learningrate=1) == "training.unknown-argument"


@pytest.mark.parametrize("key", ["output_dir", "max_steps", "num_train_epochs", "seed", "save_strategy", "report_to"])
def test_what_the_node_decides(tmp_path: Path, key: str) -> None:
    assert reason_of(tmp_path, **{key: 1}) == "training.argument-is-ours"


def test_a_schedule_that_needs_an_end(tmp_path: Path) -> None:
    assert reason_of(tmp_path, lr_scheduler_type="cosine") == "training.schedule-needs-an-end"


def test_a_value_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(BadSettings) as caught:
        arguments(tmp_path, optim="no-such-optimizer")
    assert caught.value.reason == "training.bad-argument"
