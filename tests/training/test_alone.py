from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.tiny import LABELS, make_bert, make_llama, topic_rows, write_rows


def write_config(path: Path, model: Path, data: Path, limit: int = 4, every: int = 2, rate: float = 1e-2) -> Path:
    path.write_text(
        f"""
[model]
path = "{model}"
task = "sequence-classification"
pooling = "mean"
labels = {json.dumps(LABELS)}
device = "cpu"
[lora]
r = 2
[data]
train = ["{data}"]
evaluation_fraction = 0.25
[training]
threads = 1
arguments = {{ per_device_train_batch_size = 4, learning_rate = {rate} }}
[round]
steps = 3
limit = {limit}
evaluate_every = {every}
"""
    )
    return path


def alone(*configs: Path) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, "-m", "decaf_node.training.alone", *configs], capture_output=True, text=True, timeout=200
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.slow
def test_each_configuration_trains_for_its_rounds_and_nothing_else_is_printed(tmp_path: Path) -> None:
    model = make_bert(tmp_path / "bert")
    data = write_rows(tmp_path / "rows.jsonl", topic_rows(12))
    one = write_config(tmp_path / "one.toml", model, data)
    two = write_config(tmp_path / "two.toml", model, data, limit=3, every=1)
    code, lines, said = alone(one, two)
    assert code == 0, said
    assert [(line["config"], line["round"]) for line in lines] == [
        *((str(one), number) for number in range(1, 5)),
        *((str(two), number) for number in range(1, 4)),
    ]
    assert [line["accuracy"] is None for line in lines] == [True, False, True, False, False, False, False]
    assert all(line["loss"] > 0 for line in lines)
    # the same seed, the same data: a configuration does not depend on the one before it
    assert [line["loss"] for line in lines[:3]] == pytest.approx([line["loss"] for line in lines[4:]], rel=1e-6)
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_language_model_learns_answers_in_batches_larger_than_an_answer_is_long(tmp_path: Path) -> None:
    """The Trainer cuts whatever is in a batch to the batch's size: what is wanted of the logits must not be in it."""
    model = make_llama(tmp_path / "llama", chat=True)
    rows = [{"prompt": row["text"], "text": row["label"]} for row in topic_rows(12)]
    config = write_config(tmp_path / "config.toml", model, write_rows(tmp_path / "rows.jsonl", rows), limit=2)
    text = config.read_text().replace("sequence-classification", "causal-lm").replace('pooling = "mean"\n', "")
    config.write_text(text.replace("[data]\n", '[data]\nprompt_column = "prompt"\n'))
    code, lines, said = alone(config)
    assert code == 0, said
    assert [line["accuracy"] is None for line in lines] == [True, False]


@pytest.mark.slow
def test_what_does_not_fit_is_a_sentence(tmp_path: Path) -> None:
    model = make_bert(tmp_path / "bert")
    data = write_rows(tmp_path / "rows.jsonl", topic_rows(12))
    endless = write_config(tmp_path / "endless.toml", model, data, limit=0)
    code, lines, said = alone(endless)
    assert (code, lines) == (78, [])
    assert "alone.no-limit" in said
    wild = write_config(tmp_path / "wild.toml", model, data, rate=1e30)
    code, lines, said = alone(wild)
    assert code == 65
    assert "training.loss-not-finite" in said
    assert "Traceback" not in said
