"""Examples, and rows of data turned into those of texts, by task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decaf_node.errors import BadData, BadSettings
from decaf_node.settings import DataSection, Settings

IGNORED = -100  # the label that transformers' losses leave out
KEYS = "example_keys"


@dataclass(frozen=True, slots=True)
class Example:
    """Token IDs, an image, or both, and what is to be learned from them.

    label:   index of the class (of a classifier, or of a causal answer that is one of model.labels), else -1
    prompt:  number of leading tokens whose loss is masked
    key:     hash of the tokens, the same in every process
    content: hash of the row, or of the image, in [0, 1): decides whether it is held out
    image:   path of an image file, which is decoded when a batch needs it
    """

    tokens: NDArray[np.int32]
    label: int
    prompt: int
    key: int
    content: float
    image: str = ""


class BadRow(BadData):
    """A row that is not as the settings say, without what it holds: data is private. index: among the rows given."""

    def __init__(self, reason: str, message: str, index: int) -> None:
        super().__init__(reason, message)
        self.index = index

    def __reduce__(self) -> tuple[type[BadRow], tuple[str, str, int]]:
        return type(self), (self.reason, self.message, self.index)


class NoneReadable(BadData):
    """Of a whole batch nothing can be read any more."""


Encode = Callable[[Sequence[Mapping[str, Any]]], list[Example]]


def columns_needed(settings: Settings) -> list[str]:
    """Return the columns that the task reads. Raises BadSettings if two ways to give the text are set at once."""
    data = settings.data
    if settings.model.task == "sequence-classification":
        return [data.text_column, data.label_column]
    if data.messages_column and data.prompt_column:
        raise BadSettings(
            "data.two-texts", "data.messages_column and data.prompt_column are both set; choose one of them."
        )
    if data.messages_column:
        return [data.messages_column]
    return [data.prompt_column, data.text_column] if data.prompt_column else [data.text_column]


def make_encoder(settings: Settings, tokenizer: Any) -> Encode:
    """Return the function that turns rows into examples; rows without anything to learn from are left out."""
    data, labels = settings.data, settings.model.labels
    if settings.model.task == "sequence-classification":
        return lambda rows: _classified(rows, data, labels, tokenizer)
    if data.messages_column:
        return lambda rows: _chats(rows, data, tokenizer)
    if data.prompt_column:
        return lambda rows: _answers(rows, data, labels, tokenizer)
    return lambda rows: _texts(rows, data, tokenizer)


def answer_tokens(tokenizer: Any, prompt: str, answer: str, limit: int) -> tuple[list[int], list[int]]:
    """Return the tokens of a prompt and of its answer, together at most ``limit``.

    With a chat template the prompt is the user's message and the answer the assistant's; without one the answer
    follows the prompt and ends with the end token. A prompt that is too long loses its middle: a question may stand
    at either end of it.
    """
    tail = tokenizer(answer, add_special_tokens=False)["input_ids"] + _end(tokenizer)
    head = prompt_tokens(tokenizer, prompt)
    excess = len(head) + len(tail) - limit
    if excess > 0:
        body = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        kept = max(len(body) - excess, 0)
        shorter = body[: kept - kept // 2] + body[len(body) - kept // 2 :]
        head = prompt_tokens(tokenizer, tokenizer.decode(shorter))
        head = head[: max(limit - len(tail), 0)]  # decoding and encoding again may give a token more
    return head, tail[: limit - len(head)]


def prompt_tokens(tokenizer: Any, prompt: str) -> list[int]:
    """Return the tokens of a prompt: as the user's message where there is a chat template, else as it is."""
    if not tokenizer.chat_template:
        return list(tokenizer(prompt)["input_ids"])
    chat = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def collate(examples: Sequence[Example], pad: int, causal: bool, keyed: bool) -> dict[str, Tensor]:
    """Return one batch, padded on the right to its longest example."""
    width = max(len(example.tokens) for example in examples)
    ids = np.full((len(examples), width), pad, dtype=np.int64)
    mask = np.zeros((len(examples), width), dtype=np.int64)
    for row, example in enumerate(examples):
        ids[row, : len(example.tokens)] = example.tokens
        mask[row, : len(example.tokens)] = 1
    batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if causal:
        labels = np.where(mask == 1, ids, IGNORED)
        for row, example in enumerate(examples):
            labels[row, : example.prompt] = IGNORED
        batch["labels"] = torch.from_numpy(labels)
    else:
        batch["labels"] = torch.tensor([example.label for example in examples])
    if keyed:
        batch[KEYS] = torch.tensor([example.key for example in examples])
    return batch


def _classified(
    rows: Sequence[Mapping[str, Any]], data: DataSection, labels: Sequence[str], tokenizer: Any
) -> list[Example]:
    known = {label: index for index, label in enumerate(labels)}
    texts = [_text(row[data.text_column]) for row in rows]
    names = [_text(row[data.label_column]) for row in rows]
    for index, name in enumerate(names):
        if name not in known:
            raise _unknown_label(data.label_column, labels, index)
    tokens = tokenizer(texts, truncation=True, max_length=data.max_length)["input_ids"] if texts else []
    return [
        _example(ids, known[name], 0, (text, name))
        for ids, text, name in zip(tokens, texts, names, strict=True)
        if text.strip()
    ]


def _texts(rows: Sequence[Mapping[str, Any]], data: DataSection, tokenizer: Any) -> list[Example]:
    texts = [_text(row[data.text_column]) for row in rows]
    end = _end(tokenizer)
    tokens = tokenizer(texts)["input_ids"] if texts else []
    # the end token counts too, unless the tokenizer puts it there by itself
    ended = [(ids if ids[-1:] == end else ids + end)[: data.max_length] for ids in tokens]
    return [
        _example(ids, -1, 0, (text,)) for ids, text in zip(ended, texts, strict=True) if text.strip() and len(ids) > 1
    ]


def _answers(
    rows: Sequence[Mapping[str, Any]], data: DataSection, labels: Sequence[str], tokenizer: Any
) -> list[Example]:
    known = {label: index for index, label in enumerate(labels)}
    examples = []
    for index, row in enumerate(rows):
        prompt, answer = _text(row[data.prompt_column]), _text(row[data.text_column])
        if labels and answer not in known:
            raise _unknown_label(data.text_column, labels, index)
        head, tail = answer_tokens(tokenizer, prompt, answer, data.max_length)
        if answer.strip() and head and tail:
            examples.append(_example(head + tail, known.get(answer, -1), len(head), (prompt, answer)))
    return examples


def _chats(rows: Sequence[Mapping[str, Any]], data: DataSection, tokenizer: Any) -> list[Example]:
    if not tokenizer.chat_template:
        raise BadData(
            "data.no-chat-template", "data.messages_column is set, but the model's tokenizer has no template."
        )
    examples = []
    for index, row in enumerate(rows):
        messages = row[data.messages_column]
        if not _is_chat(messages):
            raise BadRow(
                "data.not-messages",
                f"Column {data.messages_column} must hold lists of messages, each with a role and a content.",
                index,
            )
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, truncation=True, max_length=data.max_length)["input_ids"]
        if len(ids) > 1:
            examples.append(_example(ids, -1, 0, (text,)))
    return examples


def _unknown_label(column: str, labels: Sequence[str], index: int) -> BadRow:
    return BadRow(
        "data.unknown-label", f"Column {column} holds a label that is not in model.labels ({', '.join(labels)}).", index
    )


def _is_chat(messages: Any) -> bool:
    return isinstance(messages, list) and all(
        isinstance(message, Mapping) and isinstance(message.get("role"), str) and "content" in message
        for message in messages
    )


def _end(tokenizer: Any) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _example(ids: Sequence[int], label: int, prompt: int, row: Sequence[str]) -> Example:
    tokens = np.asarray(ids, dtype=np.int32)
    key = int.from_bytes(hashlib.blake2b(tokens.tobytes(), digest_size=8).digest(), "big", signed=True)
    digest = hashlib.blake2b("\0".join(row).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return Example(tokens, label, prompt, key, int.from_bytes(digest, "big") / 2**64)
