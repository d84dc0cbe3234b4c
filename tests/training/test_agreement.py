"""What a device compares with a mesh before it joins, without torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from decaf_node.errors import BadSettings
from decaf_node.settings import Settings, parse_settings
from decaf_node.training.agreement import compare

PARTS: dict[str, Any] = {
    "base": "a" * 64,
    "targets": {"q": [4, 4]},
    "task": "sequence-classification",
    "pooling": "mean",
    "labels": ["x", "y"],
    "algorithm": "decaf",
}


def settings(**model: Any) -> Settings:
    ours = {"path": "m", "task": "sequence-classification", "pooling": "mean", "labels": ["x", "y"], **model}
    return parse_settings({"model": ours, "data": {"train": ["d"]}}, "the test")


def test_what_fits_is_taken_and_what_only_torch_knows_is_said() -> None:
    said = compare(PARTS, settings(), lambda: "a" * 64)
    assert said == "the layers of the adapter are compared when the trainer has loaded the model"
    assert "no base model at m" in compare(PARTS, settings(), lambda: None)
    assert "the base model and the layers" in compare({}, settings(), lambda: "b" * 64)


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        ({"task": "causal-lm"}, "model.task"),
        ({"pooling": "head"}, "model.pooling"),
        ({"labels": ["y", "x"]}, "model.labels"),
        ({"algorithm": "dlora-fa"}, "round.algorithm"),
        ({"initial_a_seed": 7}, "mixing.initial_a_seed"),
        ({"labels": "\x1b[2J" * 100}, "model.labels"),
    ],
)
def test_what_differs_is_said_with_the_key_to_change(parts: dict[str, Any], key: str) -> None:
    with pytest.raises(BadSettings) as caught:
        compare({**PARTS, **parts}, settings(), lambda: "a" * 64)
    assert caught.value.reason == "join.other-schema"
    assert f"{key} = " in caught.value.message
    assert caught.value.message.isprintable()


def test_another_base_model_is_said() -> None:
    with pytest.raises(BadSettings) as caught:
        compare(PARTS, settings(), lambda: "b" * 64)
    assert caught.value.reason == "join.other-model"
    assert "(aaaaaaaa...) than the one in m (bbbbbbbb...)" in caught.value.message


def test_it_needs_no_torch() -> None:
    code = "import sys, decaf_node.training.agreement, decaf_node.training.base; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
