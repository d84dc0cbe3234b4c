"""The held-out part: loss for every task, accuracy where there are labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from decaf_node.training.examples import IGNORED, Example, NoneReadable, collate
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
    """Each example's loss, what its loss is divided by (1, or its tokens of a language model), and was it right."""

    losses: list[float]
    weights: list[float]
    right: list[bool]

    @property
    def loss(self) -> float:
        return sum(self.losses) / sum(self.weights)

    @property
    def accuracy(self) -> float:
        return sum(self.right) / len(self.right)


Scorer = Callable[[Any, Sequence[Example]], Score]


def evaluate(
    model: Any,
    examples: Sequence[Example],
    scorer: Scorer,
    batch: int,
    ranked: bool,
    between: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Return the mean of what ``score_each`` finds. ranked: the task has labels."""
    started = time.monotonic()
    score = score_each(model, examples, scorer, batch, between)
    return Evaluation(
        loss=score.loss,
        accuracy=score.accuracy if ranked else None,
        examples=len(score.right),
        seconds=time.monotonic() - started,
    )


def score_each(
    model: Any,
    examples: Sequence[Example],
    scorer: Scorer,
    batch: int,
    between: Callable[[], None] = lambda: None,
) -> Score:
    """Score ``examples`` without touching the model, its mode or any random generator.

    The order in the score is one of its own, the same for every model. What cannot be read any more is left out.
    ``between`` is called after every batch; it must leave the model as it is. Raises NoneReadable if nothing is left.
    """
    training = model.training
    model.eval()
    whole = Score([], [], [])
    unreadable: NoneReadable | None = None
    with torch.no_grad():
        for part in _batches(examples, batch):
            try:
                score = scorer(model, part)
            except NoneReadable as error:
                score, unreadable = Score([], [], []), error
            whole.losses.extend(score.losses)
            whole.weights.extend(score.weights)
            whole.right.extend(score.right)
            between()
    model.train(training)
    if unreadable is not None and not whole.weights:
        raise unreadable
    return whole


def classify(pad: int, keyed: bool) -> Scorer:
    """Score a sequence classifier."""

    return classify_batches(partial(collate, pad=pad, causal=False, keyed=keyed))


def classify_batches(collate: Callable[[Sequence[Example]], dict[str, Any]]) -> Scorer:
    """Score a classifier of whatever ``collate`` makes batches of."""

    def score(model: Any, examples: Sequence[Example]) -> Score:
        batch = to_device(collate(examples), model)
        labels = batch.pop("labels")
        logits = model(**batch).logits.float()
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return Score(losses.tolist(), [1.0] * len(labels), (logits.argmax(-1) == labels).tolist())

    return score


def predict_tokens(pad: int, keyed: bool) -> Scorer:
    """Score a language model by the loss of its tokens."""

    def score(model: Any, examples: Sequence[Example]) -> Score:
        batch = to_device(collate(examples, pad, causal=True, keyed=keyed), model)
        labels = batch.pop("labels")[:, 1:]
        logits = model(**batch).logits[:, :-1].float()
        losses = functional.cross_entropy(logits.mT, labels, ignore_index=IGNORED, reduction="none")
        tokens = (labels != IGNORED).sum(1).float()
        return Score(losses.sum(1).tolist(), tokens.tolist(), [False] * len(examples))

    return score


def rank_answers(pad: int, answers: Sequence[Sequence[int]]) -> Scorer:
    """Score a language model by which of ``answers`` (tokens of each label) it holds for likeliest after the prompt.

    The likelihood is that of the whole answer, its end included. The prompts run once; each answer then continues
    from their key-value cache.
    """

    def score(model: Any, examples: Sequence[Example]) -> Score:
        prompts = [_prompt(example) for example in examples]
        batch = to_device(collate(prompts, pad, causal=False, keyed=False), model)
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
        losses = -likelihoods[torch.arange(len(prompts)), gold]
        return Score(losses.tolist(), tokens[gold].float().tolist(), (likelihoods.argmax(1) == gold).tolist())

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


def to_device(batch: dict[str, Any], model: Any) -> dict[str, Any]:
    """Return the batch with its tensors where the model is."""
    device = next(model.parameters()).device
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
