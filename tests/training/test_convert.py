"""On a real GGUF model: 135 M parameters, four-bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from decaf_node.errors import BadData
from decaf_node.settings import ModelSection
from decaf_node.training.convert import convert
from decaf_node.training.model import load_base, load_tokenizer
from tests.training.assets import asset

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.e2e
def test_a_converted_model_says_what_the_gguf_says(tmp_path: Path) -> None:
    folder = asset(f"smollm2/{GGUF}").parent
    out = tmp_path / "new" / "model"
    convert(folder, GGUF, out)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in out.iterdir()}
    assert [path.name for path in out.parent.iterdir()] == ["model"]
    section, quantized = ModelSection(path=out), ModelSection(path=folder, gguf_file=GGUF)
    tokenizer = load_tokenizer(section)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], tokenize=False, add_generation_prompt=True
    )
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        expected = load_base(quantized, 0).eval()(input_ids=ids).logits
        assert torch.equal(load_base(section, 0).eval()(input_ids=ids).logits, expected)
    with pytest.raises(BadData) as caught:
        convert(folder, GGUF, out)
    assert caught.value.reason == "convert.exists"

    answered = subprocess.run(
        [sys.executable, "-m", "decaf_node.training.answer", "--model", out, "What is the capital of France?"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "Paris" in answered.stdout


def test_what_is_no_gguf_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"no")
    with pytest.raises(BadData) as caught:
        convert(tmp_path, "x.gguf", tmp_path / "out")
    assert caught.value.reason == "model.unreadable"
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]
