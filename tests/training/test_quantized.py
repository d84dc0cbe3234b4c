"""A base in 4 or 8 bits, by the real bitsandbytes, which also works on the CPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import LlamaConfig, LlamaForCausalLM

from decaf_node.errors import BadSettings
from decaf_node.link import Evaluated, InspectSnapshot, MixEdge, MixRound, RoundMixed, RoundTrained, SnapshotInspected
from decaf_node.settings import ModelSection
from decaf_node.training.export import load_exported
from decaf_node.training.lora import attach_lora, lora_layers
from decaf_node.training.model import load_base
from decaf_node.training.quantized import check_quantization, quantized
from tests.training.fake_daemon import running_worker
from tests.training.tiny import SPECIAL, WORDS, causal_settings, make_llama, make_tokenizer, topic_rows, write_rows

IDS = torch.tensor([[8, 9, 10, 11, 12]])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough to be cut into blocks of 64 weights."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        eos_token_id=4,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def section(path: Path, **more: object) -> ModelSection:
    return ModelSection.model_validate({"path": path, "device": "cpu", **more})


def test_transformers_is_told_what_the_settings_say(llama: Path) -> None:
    assert quantized(section(llama)) == {}
    eight = quantized(section(llama, quantization="8bit"))["quantization_config"]
    assert (eight.load_in_8bit, eight.load_in_4bit) == (True, False)
    four = quantized(section(llama, quantization="4bit", dtype="bfloat16"))
    config = four["quantization_config"]
    assert (config.load_in_8bit, config.load_in_4bit) == (False, True)
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert four["device_map"] == {"": torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")}


@pytest.mark.parametrize(
    "more",
    [{"task": "sequence-classification", "labels": ("a", "b")}, {"gguf_file": "model.gguf"}],
)
def test_only_a_language_model_in_safetensors_is_quantized(llama: Path, more: Mapping[str, object]) -> None:
    with pytest.raises(ValidationError, match="quantization is for task causal-lm"):
        section(llama, quantization="4bit", **more)


@pytest.mark.parametrize(("bits", "dtype", "off"), [("8bit", torch.int8, 0.05), ("4bit", torch.uint8, 0.3)])
def test_the_base_is_small_and_nearly_the_same(llama: Path, bits: str, dtype: torch.dtype, off: float) -> None:
    full, small = load_base(section(llama), 0), load_base(section(llama, quantization=bits), 0)
    assert small.model.layers[0].mlp.up_proj.weight.dtype == dtype
    assert small.get_memory_footprint() < 0.5 * full.get_memory_footprint()
    with torch.no_grad():
        wanted, got = full(input_ids=IDS).logits, small(input_ids=IDS).logits
    assert 0 < (got - wanted).norm() < off * wanted.norm()


def test_the_first_adapter_is_that_of_a_full_base(llama: Path) -> None:
    layers = []
    for bits in ("none", "8bit", "4bit"):
        settings = causal_settings(llama, llama, model={"quantization": bits})
        layers.append(dict(lora_layers(attach_lora(load_base(settings.model, 0), settings))))
    for other in layers[1:]:
        assert other.keys() == layers[0].keys()
        for name, layer in other.items():
            assert torch.equal(weight_of(layer), weight_of(layers[0][name]))


def weight_of(layer: Any) -> torch.Tensor:
    weight: torch.Tensor = layer.lora_A["default"].weight
    return weight


@pytest.mark.slow
def test_a_4_bit_node_mixes_with_a_full_one(llama: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", topic_rows(12))
    small = causal_settings(llama, rows, model={"quantization": "4bit"})
    with running_worker() as one, running_worker() as two:
        ready = [one.daemon.start(small), two.daemon.start(causal_settings(llama, rows, training={"seed": 1}))]
        assert ready[0].schema == ready[1].schema
        assert ready[0].base == ready[1].base
        trained = [worker.daemon.expect(RoundTrained).snapshot for worker in (one, two)]
        one.daemon.send(InspectSnapshot(trained[1], trained[0]))
        assert one.daemon.expect(SnapshotInspected).distance > 0
        one.daemon.send(MixRound(1, (MixEdge("two", 0.5, *trained),)))
        assert one.daemon.expect(RoundMixed).edges == 1
        one.daemon.expect(Evaluated)
        saved, _ = one.daemon.save_between_rounds(2, tmp_path / "saved")
    load_exported(Path(saved.export), llama)[0](input_ids=IDS)  # on the full base


def test_without_bitsandbytes_it_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['bitsandbytes'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'bitsandbytes' else real(name, *more)\n"
        "from decaf_node.errors import DecafError\n"
        "from decaf_node.settings import ModelSection\n"
        "from decaf_node.training.quantized import check_quantization\n"
        "try: check_quantization(ModelSection(path='/none', quantization='4bit'))\n"
        "except DecafError as error: print(error); sys.exit(error.exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 78, done.stderr
    assert done.stdout.endswith("[model.no-bitsandbytes]\n")
    assert 'pip install "decaf-node[quantized]"' in done.stdout


def test_a_device_on_which_it_fails_is_named(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decaf_node.training.quantized._device", lambda model: torch.device("meta"))
    with pytest.raises(BadSettings, match="does not work on this device") as caught:
        check_quantization(section(llama, quantization="4bit"))
    assert caught.value.reason == "model.quantization-fails"


def test_a_tiny_model_is_quantized_too(tmp_path: Path) -> None:
    """Layers of fewer weights than a block."""
    load_base(section(make_llama(tmp_path / "llama"), quantization="4bit"), 0)(input_ids=IDS)
