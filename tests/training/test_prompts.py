"""Leaving out the logits of prompts changes nothing that is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from decaf_node.training.examples import collate, make_encoder
from decaf_node.training.model import load_base, load_tokenizer
from decaf_node.training.prompts import skip_prompt_logits
from tests.training.tiny import causal_settings, make_llama, topic_rows


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama"), chat=True)


def rows() -> list[dict[str, Any]]:
    return [{"prompt": row["text"] + " is" * (n % 4), "text": row["label"]} for n, row in enumerate(topic_rows(2))]


@pytest.mark.parametrize(("column", "fewer"), [("prompt", True), ("", False)])
def test_loss_and_gradients_are_the_same(llama: Path, column: str, fewer: bool) -> None:
    settings = causal_settings(llama, llama, data={"prompt_column": column, "max_length": 24})
    tokenizer = load_tokenizer(settings.model)
    batch = collate(make_encoder(settings, tokenizer)(rows()), 0, causal=True, keyed=False)
    learned = []
    for skip in (False, True):
        model = load_base(settings.model, 0)
        if skip:
            skip_prompt_logits(model)
        out = model(**batch)
        out.loss.backward()
        learned.append((out.loss, [parameter.grad for parameter in model.parameters()]))
    assert (out.logits.shape[1] < batch["input_ids"].shape[1]) == fewer
    torch.testing.assert_close(learned[0], learned[1])


def test_a_batch_without_anything_to_learn_is_left_as_it_is(llama: Path) -> None:
    model = load_base(causal_settings(llama, llama).model, 0)
    skip_prompt_logits(model)
    ids = torch.ones(2, 5, dtype=torch.int64)
    assert model(input_ids=ids, labels=torch.full_like(ids, -100)).logits.shape[1] == 5
    assert model(input_ids=ids).logits.shape[1] == 5
