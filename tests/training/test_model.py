from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from decaf_node.errors import BadData, BadSettings, DecafError, NotAllowed
from decaf_node.settings import ModelSection
from decaf_node.training.model import choose_device, load_base, load_tokenizer
from decaf_node.training.pooling import MeanPooledClassifier
from tests.training.tiny import LABELS, make_bert, make_llama


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize(("device", "reason"), [("cuda:1", "model.one-device"), ("cuda", "training.too-few-devices")])
def test_several_processes_need_a_device_each(device: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BadSettings) as caught:
        choose_device(device, 2)
    assert caught.value.reason == reason


def section(path: Path, **more: object) -> ModelSection:
    return ModelSection.model_validate({"path": path, **more})


def classifier(path: Path, **more: object) -> ModelSection:
    return section(path, **{"task": "sequence-classification", "labels": LABELS, **more})


def reason_of(model: ModelSection, kind: type[DecafError]) -> str:
    with pytest.raises(kind) as caught:
        load_base(model, seed=0)
    return caught.value.reason


def test_a_language_model_loads(llama: Path) -> None:
    model = load_base(section(llama), seed=0)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.dtype == torch.float32


def test_the_dtype_of_the_base_can_be_chosen(llama: Path) -> None:
    assert load_base(section(llama, dtype="bfloat16"), seed=0).dtype == torch.bfloat16


def test_a_stock_classifier_has_the_labels(bert: Path) -> None:
    model = load_base(classifier(bert), seed=0)
    assert model.config.num_labels == 3
    assert model.config.id2label == dict(enumerate(LABELS))


def test_new_heads_are_the_same_at_every_node_whatever_its_random_state(bert: Path) -> None:
    for pooling, head in (("head", "classifier.weight"), ("mean", "classifier.weight")):
        torch.manual_seed(1)
        one = load_base(classifier(bert, pooling=pooling), seed=7).state_dict()[head]
        torch.manual_seed(2)
        before = torch.get_rng_state()
        two = load_base(classifier(bert, pooling=pooling), seed=7).state_dict()[head]
        assert torch.equal(one, two)
        assert torch.equal(before, torch.get_rng_state())  # and nobody else's draws are disturbed
        assert not torch.equal(one, load_base(classifier(bert, pooling=pooling), seed=8).state_dict()[head])


def test_mean_pooling_leaves_padding_out(bert: Path) -> None:
    model = load_base(classifier(bert, pooling="mean"), seed=0).eval()
    assert isinstance(model, MeanPooledClassifier)
    ids, mask = torch.tensor([[2, 8, 9, 3]]), torch.ones(1, 4, dtype=torch.long)
    padded = torch.nn.functional.pad(ids, (0, 3)), torch.nn.functional.pad(mask, (0, 3))
    hidden = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    by_hand = model.classifier(hidden.mean(1))
    assert torch.allclose(model(ids, mask).logits, by_hand, atol=1e-6)
    assert torch.allclose(model(*padded).logits, by_hand, atol=1e-6)


def test_no_folder(tmp_path: Path) -> None:
    assert reason_of(section(tmp_path / "none"), BadData) == "model.missing"


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert reason_of(section(tmp_path), BadData) == "model.not-a-model"


def test_a_configuration_that_is_no_json(tmp_path: Path) -> None:
    make_llama(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert reason_of(section(tmp_path), BadData) == "model.not-a-model"


def test_damaged_weights(tmp_path: Path) -> None:
    make_llama(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    assert reason_of(section(tmp_path), BadData) == "model.unreadable"


def test_a_model_for_another_task(bert: Path) -> None:
    assert reason_of(section(bert), BadData) == "model.weights-missing"


def test_a_head_for_other_labels_is_replaced(bert: Path, tmp_path: Path) -> None:
    load_base(classifier(bert), seed=0).save_pretrained(tmp_path)
    model = load_base(classifier(tmp_path, labels=["a", "b"]), seed=0)
    assert model.classifier.out_features == 2


def test_pickled_weights_are_refused_until_allowed(tmp_path: Path) -> None:
    make_llama(tmp_path)
    model = load_base(section(tmp_path), seed=0)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert reason_of(section(tmp_path), NotAllowed) == "model.pickled"
    again = load_base(section(tmp_path, allow_pickle=True), seed=0)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_code_in_the_folder_is_refused_and_not_run(tmp_path: Path) -> None:
    make_llama(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\n")
    assert reason_of(section(tmp_path), NotAllowed) == "model.remote-code"
    assert not (tmp_path / "was-run").exists()


def test_a_gguf_file_that_is_not_there(tmp_path: Path) -> None:
    assert reason_of(section(tmp_path, gguf_file="x.gguf"), BadData) == "model.missing"


def test_a_gguf_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"no")
    assert reason_of(section(tmp_path, gguf_file="x.gguf"), BadData) == "model.unreadable"


def test_a_classifier_needs_labels(bert: Path) -> None:
    assert reason_of(section(bert, task="sequence-classification"), BadSettings) == "model.labels-missing"


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    make_llama(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(BadData) as caught:
        load_tokenizer(section(tmp_path))
    assert caught.value.reason == "model.no-tokenizer"


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    make_llama(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(section(tmp_path))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert tokenizer.padding_side == "right"


def test_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(BadSettings) as caught:
        choose_device("cuda:1")
    assert caught.value.reason == "model.no-cuda"


def test_a_device_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(BadSettings) as caught:
        choose_device("tpu")
    assert caught.value.reason == "model.unknown-device"


@pytest.mark.parametrize(("visible", "device", "shown"), [("", "auto", ""), ("", "cpu", ""), ("4,7", "cpu", "")])
def test_only_the_chosen_device_is_seen(monkeypatch: pytest.MonkeyPatch, visible: str, device: str, shown: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    choose_device(device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == shown
