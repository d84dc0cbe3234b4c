from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from decaf_node.errors import BadData
from decaf_node.settings import Settings
from decaf_node.training.evaluate import classify, evaluate
from decaf_node.training.examples import make_encoder
from decaf_node.training.export import load_exported, write_export
from decaf_node.training.live import find_adapter
from decaf_node.training.lora import attach_lora
from decaf_node.training.model import load_base, load_tokenizer
from tests.training.test_live import randomised
from tests.training.tiny import LABELS, classifier_settings, make_bert, topic_rows


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("bert"))


def trained(settings: Settings) -> Any:
    model = attach_lora(load_base(settings.model, 5), settings)
    live = find_adapter(model)
    live.load(randomised(live.read(), 1))
    return model.eval()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("pooling", ["mean", "head"])
def test_an_export_reproduces_the_nodes_own_evaluation(bert: Path, tmp_path: Path, pooling: str, dtype: str) -> None:
    settings = classifier_settings(bert, bert, model={"pooling": pooling, "dtype": dtype}, lora={"use_rslora": True})
    model = trained(settings)
    write_export(tmp_path / "out", model, settings.model, "base")
    loaded, tokenizer = load_exported(tmp_path / "out", bert)
    assert not loaded.training
    examples = make_encoder(settings, load_tokenizer(settings.model))(topic_rows())
    scorer = classify(0, keyed=False)
    ours = evaluate(model, examples, scorer, batch=8, ranked=True)
    theirs = evaluate(loaded, examples, scorer, batch=8, ranked=True)
    assert (theirs.loss, theirs.accuracy) == (ours.loss, ours.accuracy)
    batch = tokenizer(["the cat sat"], return_tensors="pt")
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    assert loaded(**inputs).logits.shape == (1, len(LABELS))
    assert [loaded.config.id2label[number] for number in range(3)] == list(LABELS)


def test_a_stock_head_needs_nothing_but_peft(bert: Path, tmp_path: Path) -> None:
    settings = classifier_settings(bert, bert, model={"pooling": "head"})
    model = trained(settings)
    write_export(tmp_path, model, settings.model, "base")
    loaded = PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(bert, num_labels=3), tmp_path
    ).eval()
    ids = torch.tensor([[2, 8, 9, 3]])
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_save_leaves_no_card_and_the_model_as_it_was(bert: Path, tmp_path: Path) -> None:
    """PEFT's card says nothing, and takes longer than the rest; who saves the model himself has his."""
    settings = classifier_settings(bert, bert, model={"pooling": "head"})
    model = trained(settings)
    write_export(tmp_path / "ours", model, settings.model, "base")
    assert not (tmp_path / "ours" / "README.md").exists()
    model.save_pretrained(tmp_path / "theirs")
    assert (tmp_path / "theirs" / "README.md").exists()


def test_what_is_no_export(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "decaf.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadData) as caught:
            load_exported(folder, bert)
        assert caught.value.reason == "export.not-an-export"


def test_an_export_without_its_adapter(bert: Path, tmp_path: Path) -> None:
    settings = classifier_settings(bert, bert)
    write_export(tmp_path, trained(settings), settings.model, "base")
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(BadData) as caught:
        load_exported(tmp_path, bert)
    assert caught.value.reason == "export.not-an-export"
