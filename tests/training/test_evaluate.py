from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decaf_node.settings import Settings
from decaf_node.training.evaluate import classify, evaluate, predict_tokens, rank_answers
from decaf_node.training.examples import answer_tokens, collate, make_encoder
from decaf_node.training.model import load_base, load_tokenizer
from decaf_node.training.prompts import keeps_logits
from tests.training.tiny import causal_settings, classifier_settings, make_bert, make_llama, topic_rows


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama"), chat=True)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("bert"), dropout=0.5)


def loaded(settings: Settings) -> tuple[Any, Any]:
    torch.manual_seed(0)
    return load_base(settings.model, 0).train(), load_tokenizer(settings.model)


def question(settings: Path, labels: tuple[str, ...]) -> Settings:
    return causal_settings(
        settings, settings, data={"prompt_column": "prompt", "max_length": 24}, model={"labels": labels}
    )


@pytest.mark.slow
def test_answers_are_ranked_as_by_scoring_each_whole_sequence(llama: Path) -> None:
    labels = ("sport", "politics", "tech chip", "tech", "law team goal")  # of several lengths, one a part of another
    settings = question(llama, labels)
    model, tokenizer = loaded(settings)
    rows = [{"prompt": row["text"] + " is" * (n % 4), "text": labels[n % 5]} for n, row in enumerate(topic_rows())]
    examples = make_encoder(settings, tokenizer)(rows)
    answers = [answer_tokens(tokenizer, "", label, 24)[1] for label in labels]

    right, loss, tokens = 0, 0.0, 0
    model.eval()
    for example in examples:
        prompt = example.tokens[: example.prompt].tolist()
        likelihoods = []
        for answer in answers:
            ids = torch.tensor([prompt + answer])
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            likelihoods.append(logits.gather(1, torch.tensor(answer)[:, None]).sum().item())
        right += int(np.argmax(likelihoods)) == example.label
        loss -= likelihoods[example.label]
        tokens += len(answers[example.label])

    result = evaluate(model, examples, rank_answers(0, answers), batch=7, ranked=True)
    assert result.accuracy == right / len(examples)
    assert 0 < right < len(examples)
    assert result.loss == pytest.approx(loss / tokens, rel=1e-5)
    assert result.examples == len(examples)
    # and that is also the loss of the answers' tokens as training sees it
    plain = evaluate(model, examples, predict_tokens(0, keyed=False), batch=5, ranked=False)
    assert plain.loss == pytest.approx(result.loss, rel=1e-5)
    assert plain.accuracy is None


class Whole(torch.nn.Module):
    """A language model that returns the logits of all tokens, whatever is asked."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, **batch: Any) -> Any:
        assert "logits_to_keep" not in batch
        return self.inner(**batch)


@pytest.mark.slow
def test_a_model_that_returns_all_logits_is_scored_alike(llama: Path) -> None:
    settings = question(llama, ("sport", "politics", "tech"))
    model, tokenizer = loaded(settings)
    rows = [{"prompt": row["text"] + " is" * (n % 4), "text": row["label"]} for n, row in enumerate(topic_rows())]
    examples = make_encoder(settings, tokenizer)(rows)
    answers = [answer_tokens(tokenizer, "", label, 24)[1] for label in settings.model.labels]
    assert keeps_logits(model)
    assert not keeps_logits(Whole(model))
    for scorer in (rank_answers(0, answers), predict_tokens(0, keyed=False)):
        some = evaluate(model, examples, scorer, batch=5, ranked=True)
        whole = evaluate(Whole(model), examples, scorer, batch=5, ranked=True)
        assert some.loss == pytest.approx(whole.loss, rel=1e-5)
        assert some.accuracy == whole.accuracy


def test_classes_are_scored_as_one_by_one(bert: Path) -> None:
    settings = classifier_settings(bert, bert)
    model, tokenizer = loaded(settings)
    examples = make_encoder(settings, tokenizer)(topic_rows(5))
    model.eval()
    losses, right = [], 0
    for example in examples:
        with torch.no_grad():
            out = model(**collate([example], 0, causal=False, keyed=False))
        losses.append(out.loss.item())
        right += int(out.logits.argmax()) == example.label
    result = evaluate(model, examples, classify(0, keyed=False), batch=4, ranked=True)
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert result.accuracy == right / len(examples)


def test_nothing_is_left_changed(bert: Path) -> None:
    """Dropout would draw from the generator, and training would go another way after an evaluation."""
    settings = classifier_settings(bert, bert)
    model, tokenizer = loaded(settings)
    examples = make_encoder(settings, tokenizer)(topic_rows(2))
    before = torch.get_rng_state()
    one = evaluate(model, examples, classify(0, keyed=False), batch=4, ranked=True)
    two = evaluate(model, examples, classify(0, keyed=False), batch=4, ranked=True)
    assert one.loss == two.loss
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
