"""The held-out part: loss for every task, accuracy where there are labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from decaf_node.training.examples import IGNORED, Example, collate
from decaf_node.training.prompts import keeps_logits


@dataclass(frozen=True)
class Evaluation:
    """accuracy is None where the task has no labels."""

    loss: float
    accuracy: float | None
    examples: int
    seconds: float


@dataclass(frozen=True)
class Score:
    """Sums over a batch. weight: what the loss is divided by (examples, or tokens of a language model)."""

    loss: float
    weight: float
    right: int


Scorer = Callable[[Any, Sequence[Example]], Score]


def evaluate(
    model: Any,
    examples: Sequence[Example],
    scorer: Scorer,
    batch: int,
    ranked: bool,
    between: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score ``examples`` without touching the model, its mode or any random generator.

    ``between`` is called after every batch; it must leave the model as it is.
    """
    started = time.monotonic()
    training = model.training
    model.eval()
    with torch.no_grad():
        scores = []
        for part in _batches(examples, batch):
            scores.append(scorer(model, part))
            between()
    model.train(training)
    right = sum(score.right for score in scores)
    return Evaluation(
        loss=sum(score.loss for score in scores) / sum(score.weight for score in scores),
        accuracy=right / len(examples) if ranked else None,
        examples=len(examples),
        seconds=time.monotonic() - started,
    )


def classify(pad: int, keyed: bool) -> Scorer:
    """Score a sequence classifier."""

    def score(model: Any, examples: Sequence[Example]) -> Score:
        batch = _to_device(collate(examples, pad, causal=False, keyed=keyed), model)
        labels = batch.pop("labels")
        logits = model(**batch).logits.float()
        loss = functional.cross_entropy(logits, labels, reduction="sum").item()
        return Score(loss, len(examples), int((logits.argmax(-1) == labels).sum()))

    return score


def predict_tokens(pad: int, keyed: bool) -> Scorer:
    """Score a language model by the loss of its tokens."""

    def score(model: Any, examples: Sequence[Example]) -> Score:
        batch = _to_device(collate(examples, pad, causal=True, keyed=keyed), model)
        labels = batch.pop("labels")[:, 1:]
        logits = model(**batch).logits[:, :-1].float()
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        return Score(loss.item(), float((labels != IGNORED).sum()), 0)

    return score


def rank_answers(pad: int, answers: Sequence[Sequence[int]]) -> Scorer:
    """Score a language model by which of ``answers`` (tokens of each label) it holds for likeliest after the prompt.

    The likelihood is that of the whole answer, its end included. The prompts run once; each answer then continues
    from their key-value cache.
    """

    def score(model: Any, examples: Sequence[Example]) -> Score:
        prompts = [_prompt(example) for example in examples]
        batch = _to_device(collate(prompts, pad, causal=False, keyed=False), model)
        lengths = batch["attention_mask"].sum(1)
        last = torch.arange(int(lengths.min()) - 1, int(lengths.max()), device=lengths.device)
        keep = {"logits_to_keep": last} if keeps_logits(model) else {}
        out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=True, **keep)
        ends = lengths - lengths.max() - 1  # counted from the end, where the padding is
        first = out.logits[torch.arange(len(prompts)), ends].float().log_softmax(-1)
        likelihoods = torch.stack(
            [_continue(model, out.past_key_values, batch["attention_mask"], lengths, first, list(a)) for a in answers],
            1,
        )
        gold = batch["labels"]
        tokens = torch.tensor([len(answer) for answer in answers], device=gold.device)
        loss = -likelihoods[torch.arange(len(prompts)), gold].sum().item()
        return Score(loss, float(tokens[gold].sum()), int((likelihoods.argmax(1) == gold).sum()))

    return score


def _continue(model: Any, cache: Any, mask: Tensor, lengths: Tensor, first: Tensor, answer: list[int]) -> Tensor:
    """Return the log-likelihood of ``answer`` after each prompt; ``cache`` is left as it was."""
    total: Tensor = first[:, answer[0]]
    if len(answer) == 1:
        return total
    rows = mask.shape[0]
    ids = torch.tensor(answer, device=mask.device).expand(rows, -1)
    fed = ids[:, :-1]
    positions = lengths[:, None] + torch.arange(fed.shape[1], device=mask.device)
    logits = model(
        input_ids=fed,
        attention_mask=torch.cat([mask, torch.ones_like(fed)], 1),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    ).logits.float()
    cache.crop(-fed.shape[1])
    rest: Tensor = logits.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2).sum(1)
    return total + rest


def _prompt(example: Example) -> Example:
    return Example(example.tokens[: example.prompt], example.label, 0, 0, 0.0)


def _batches(examples: Sequence[Example], size: int) -> Iterator[list[Example]]:
    """Yield batches of examples of like length: less padding, same sums."""
    order = np.argsort([len(example.tokens) for example in examples], kind="stable")
    for start in range(0, len(order), size):
        yield [examples[index] for index in order[start : start + size]]


def _to_device(batch: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in batch.items()}
